/* What is used of libnghttp2.so.14, declared here: no header of the library is needed to build. Names are ours, layouts and
 * numbers are the library's stable ABI; tests/proxy/fast/test_abi.py holds them against its true header. */
#ifndef GUARD_NGHTTP2_ABI_H
#define GUARD_NGHTTP2_ABI_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    NG_DATA = 0, NG_HEADERS = 1, NG_PRIORITY = 2, NG_RST_STREAM = 3, NG_SETTINGS = 4, NG_PING = 6, NG_GOAWAY = 7,
    NG_CONTINUATION = 9,
    NG_FLAG_END_STREAM = 0x01, NG_FLAG_ACK = 0x01,
    NG_DATA_EOF = 0x01, NG_DATA_NO_END_STREAM = 0x02, NG_DATA_NO_COPY = 0x04,
    NG_HEADER_TABLE_SIZE = 1, NG_ENABLE_PUSH = 2, NG_MAX_CONCURRENT_STREAMS = 3, NG_INITIAL_WINDOW_SIZE = 4,
    NG_MAX_FRAME_SIZE = 5, NG_MAX_HEADER_LIST_SIZE = 6,
    NG_CANCEL_CODE = 8, NG_REFUSED_STREAM_CODE = 7,
    NG_ERR_WOULDBLOCK = -504, NG_ERR_DEFERRED = -508, NG_ERR_TEMPORAL = -521, NG_ERR_NOMEM = -901,
    NG_ERR_CALLBACK = -902,
};

typedef struct ng_session ng_session;
typedef struct ng_callbacks ng_callbacks;
typedef struct ng_option ng_option;

typedef struct {
    uint8_t *name, *value;
    size_t namelen, valuelen;
    uint8_t flags;
} ng_nv;

typedef struct {
    size_t length;
    int32_t stream_id;
    uint8_t type, flags, reserved;
} ng_frame_hd;

typedef struct {
    int32_t stream_id, weight;
    uint8_t exclusive;
} ng_priority_spec;

typedef struct {
    ng_frame_hd hd;
    int32_t last_stream_id;
    uint32_t error_code;
    uint8_t *opaque_data;
    size_t opaque_data_len;
    uint8_t reserved;
} ng_goaway;

/* The first member of every frame is its head; the rest is read of GOAWAY alone. */
typedef union {
    ng_frame_hd hd;
    ng_goaway goaway;
} ng_frame;

typedef struct {
    int32_t settings_id;
    uint32_t value;
} ng_settings_entry;

typedef union {
    int fd;
    void *ptr;
} ng_data_source;

typedef ssize_t (*ng_read)(ng_session *, int32_t, uint8_t *, size_t, uint32_t *, ng_data_source *, void *);

typedef struct {
    ng_data_source source;
    ng_read read_callback;
} ng_data_provider;

typedef struct {
    int age, version_num;
    const char *version_str, *proto_str;
} ng_info;

typedef int (*ng_on_begin_frame)(ng_session *, const ng_frame_hd *, void *);
typedef int (*ng_on_frame)(ng_session *, const ng_frame *, void *);
typedef int (*ng_on_header)(ng_session *, const ng_frame *, const uint8_t *, size_t, const uint8_t *, size_t, uint8_t, void *);
typedef int (*ng_on_data_chunk)(ng_session *, uint8_t, int32_t, const uint8_t *, size_t, void *);
typedef int (*ng_on_stream_close)(ng_session *, int32_t, uint32_t, void *);
typedef int (*ng_send_data)(ng_session *, ng_frame *, const uint8_t *, size_t, ng_data_source *, void *);
typedef ssize_t (*ng_read_length)(ng_session *, uint8_t, int32_t, int32_t, int32_t, uint32_t, void *);

/* X(result, name, parameters): every function that is looked up as nghttp2_<name>. */
#define NG_FUNCTIONS(X) \
    X(ng_info *, version, (int)) \
    X(const char *, strerror, (int)) \
    X(int, session_callbacks_new, (ng_callbacks **)) \
    X(void, session_callbacks_del, (ng_callbacks *)) \
    X(void, session_callbacks_set_on_begin_frame_callback, (ng_callbacks *, ng_on_begin_frame)) \
    X(void, session_callbacks_set_on_begin_headers_callback, (ng_callbacks *, ng_on_frame)) \
    X(void, session_callbacks_set_on_header_callback, (ng_callbacks *, ng_on_header)) \
    X(void, session_callbacks_set_on_invalid_header_callback, (ng_callbacks *, ng_on_header)) \
    X(void, session_callbacks_set_on_frame_recv_callback, (ng_callbacks *, ng_on_frame)) \
    X(void, session_callbacks_set_on_frame_send_callback, (ng_callbacks *, ng_on_frame)) \
    X(void, session_callbacks_set_on_data_chunk_recv_callback, (ng_callbacks *, ng_on_data_chunk)) \
    X(void, session_callbacks_set_on_stream_close_callback, (ng_callbacks *, ng_on_stream_close)) \
    X(void, session_callbacks_set_send_data_callback, (ng_callbacks *, ng_send_data)) \
    X(void, session_callbacks_set_data_source_read_length_callback, (ng_callbacks *, ng_read_length)) \
    X(int, option_new, (ng_option **)) \
    X(void, option_del, (ng_option *)) \
    X(void, option_set_no_auto_window_update, (ng_option *, int)) \
    X(void, option_set_max_outbound_ack, (ng_option *, size_t)) \
    X(void, option_set_max_settings, (ng_option *, size_t)) \
    X(void, option_set_max_continuations, (ng_option *, size_t)) \
    X(void, option_set_stream_reset_rate_limit, (ng_option *, uint64_t, uint64_t)) \
    X(void, option_set_no_rfc9113_leading_and_trailing_ws_validation, (ng_option *, int)) \
    X(void, option_set_no_closed_streams, (ng_option *, int)) \
    X(void, option_set_max_send_header_block_length, (ng_option *, size_t)) \
    X(int, session_server_new2, (ng_session **, const ng_callbacks *, void *, const ng_option *)) \
    X(int, session_client_new2, (ng_session **, const ng_callbacks *, void *, const ng_option *)) \
    X(void, session_del, (ng_session *)) \
    X(ssize_t, session_mem_recv, (ng_session *, const uint8_t *, size_t)) \
    X(ssize_t, session_mem_send, (ng_session *, const uint8_t **)) \
    X(int, session_want_read, (ng_session *)) \
    X(int, session_want_write, (ng_session *)) \
    X(int, session_resume_data, (ng_session *, int32_t)) \
    X(int, session_consume_connection, (ng_session *, size_t)) \
    X(int, session_consume_stream, (ng_session *, int32_t, size_t)) \
    X(int, session_set_local_window_size, (ng_session *, uint8_t, int32_t, int32_t)) \
    X(int32_t, session_get_stream_remote_window_size, (ng_session *, int32_t)) \
    X(int32_t, session_get_remote_window_size, (ng_session *)) \
    X(int32_t, session_get_last_proc_stream_id, (ng_session *)) \
    X(size_t, session_get_outbound_queue_size, (ng_session *)) \
    X(int, session_get_stream_remote_close, (ng_session *, int32_t)) \
    X(int, session_check_request_allowed, (ng_session *)) \
    X(int, submit_settings, (ng_session *, uint8_t, const ng_settings_entry *, size_t)) \
    X(int32_t, submit_request, (ng_session *, const ng_priority_spec *, const ng_nv *, size_t, const ng_data_provider *, void *)) \
    X(int, submit_response, (ng_session *, int32_t, const ng_nv *, size_t, const ng_data_provider *)) \
    X(int, submit_trailer, (ng_session *, int32_t, const ng_nv *, size_t)) \
    X(int, submit_rst_stream, (ng_session *, uint8_t, int32_t, uint32_t)) \
    X(int, submit_goaway, (ng_session *, uint8_t, int32_t, uint32_t, const uint8_t *, size_t)) \
    X(int, submit_shutdown_notice, (ng_session *)) \
    X(int, submit_ping, (ng_session *, uint8_t, const uint8_t *))

#endif
