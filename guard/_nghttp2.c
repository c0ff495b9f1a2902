/* One HTTP/2 session of libnghttp2 as a Python object: bytes of the network in, events out, and back again. Neither I/O nor
 * gRPC nor policy is here; guard/proxy/fast has these. The library is loaded when the module is: no header of it is needed
 * to build, and its security fixes are the distribution's.
 *
 * One call takes what was read from a socket and gives every event of it; one call gives what is to be written. Data of one
 * stream within one read come as one event. The connection's window is opened again as data arrive, a stream's where
 * consume() says so: what is unread is bounded by the streams' windows. Objects that are kept are bytes and tuples of bytes
 * and str, so there are no cycles for the collector. A session is used by one thread, and never from within itself. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "_nghttp2_abi.h"

#define LIBRARY "libnghttp2.so.14"
#define OLDEST 0x013400 /* 1.52.0 */

enum { HEADERS, DATA, CLOSED, DRAINED, GOAWAY, SETTINGS };
enum { BUCKETS = 256, FEW_HEADERS = 48, MOST_HEADERS = 4096, FRAME = 64 * 1024, OVERHEAD = 32, FAR_BEYOND = 4, BOMB = 100 };

#define DECLARE(result, name, parameters) result (*name) parameters;
typedef struct {
    NG_FUNCTIONS(DECLARE)
} Api;

static Api api;

typedef struct Stream {
    struct Stream *next; /* in its bucket */
    int32_t id;
    PyObject *number;
    PyObject *headers; /* a list, while a block of headers arrives */
    size_t header_bytes;
    Py_ssize_t arriving; /* its place among the session's arrivals; -1: none in this read */
    PyObject **queue;    /* bytes to send: `first`, and `count` of `room` in a ring */
    size_t first, count, room, offset, queued;
    PyObject *trailers;
    int ended, trailed, notify, sent, remote_end, local_end, reset_here;
} Stream;

/* Data of one stream in the buffer that is being read: an event that gets its bytes at the end. */
typedef struct {
    PyObject *event; /* borrowed from the list of events */
    size_t size;
    Py_ssize_t first, last; /* pieces */
} Arrival;

typedef struct {
    const uint8_t *data;
    size_t size;
    Py_ssize_t next;
} Piece;

typedef struct {
    PyObject_HEAD
    ng_session *session;
    Stream *buckets[BUCKETS];
    PyObject *events;
    Arrival *arrivals;
    Py_ssize_t arrivals_count, arrivals_room;
    Piece *pieces;
    Py_ssize_t pieces_count, pieces_room;
    uint8_t *out, *own;  /* out: where output goes, the session's own buffer or `handed` */
    PyObject *handed;    /* a bytearray, while much is written: it is not copied again */
    size_t out_size, out_room, own_room, out_limit, queued;
    size_t max_header_bytes, max_continuations, continuations;
    int32_t block; /* the stream whose block of headers has begun and not ended; 0: none */
    uint64_t noise;
    int server, busy, failed; /* failed: a Python exception is set */
} Session;

static PyObject *ProtocolError;

/* --- the library */

static int load(const char *name, Api *into)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        PyErr_Format(PyExc_ImportError, "%s cannot be loaded: install libnghttp2 1.52 or later", name);
        return -1;
    }
    const char *missing = NULL;
#define LOOK_UP(result, symbol, parameters) \
    { \
        void *found = dlsym(library, "nghttp2_" #symbol); \
        memcpy(&into->symbol, &found, sizeof found); \
        if (found == NULL && missing == NULL) \
            missing = "nghttp2_" #symbol; \
    }
    NG_FUNCTIONS(LOOK_UP)
    const ng_info *info = into->version == NULL ? NULL : into->version(0);
    const int old = info == NULL || into->version(OLDEST) == NULL;
    if (old || missing != NULL) {
        const char *version = info == NULL ? "of no version" : info->version_str;
        if (old)
            PyErr_Format(PyExc_ImportError, "%s is %s, and must be 1.52.0 or later", name, version);
        else
            PyErr_Format(PyExc_ImportError, "%s %s has no %s: it lacks security fixes (CVE-2023-44487, CVE-2024-28182)",
                         name, version, missing);
        dlclose(library);
        return -1;
    }
    return 0; /* stays loaded */
}

static PyObject *check(PyObject *module, PyObject *name)
{
    (void)module;
    Api found;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == NULL || load(text, &found) < 0)
        return NULL;
    return PyUnicode_FromString(found.version(0)->version_str);
}

/* --- streams */

static uint32_t multiplier = 2654435769u; /* random from the start of the module on: nobody can choose who shares a bucket */

static size_t bucket_of(int32_t id)
{
    return ((uint32_t)id * multiplier) >> 24;
}

static Stream *find(const Session *self, int32_t id)
{
    Stream *stream = self->buckets[bucket_of(id)];
    while (stream != NULL && stream->id != id)
        stream = stream->next;
    return stream;
}

static Stream *add(Session *self, int32_t id)
{
    Stream *stream = calloc(1, sizeof *stream);
    PyObject *number = PyLong_FromLong(id);
    if (stream == NULL || number == NULL) {
        free(stream);
        Py_XDECREF(number);
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        return NULL;
    }
    Stream **bucket = &self->buckets[bucket_of(id)];
    stream->id = id;
    stream->number = number;
    stream->arriving = -1;
    stream->next = *bucket;
    *bucket = stream;
    return stream;
}

static void empty(Session *self, Stream *stream)
{
    while (stream->count > 0) {
        PyObject *old = stream->queue[stream->first];
        stream->first = (stream->first + 1) % stream->room;
        stream->count--;
        Py_DECREF(old);
    }
    self->queued -= stream->queued;
    stream->queued = stream->offset = 0;
}

static void drop(Session *self, Stream *stream)
{
    Stream **at = &self->buckets[bucket_of(stream->id)];
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    empty(self, stream);
    free(stream->queue);
    Py_XDECREF(stream->headers);
    Py_XDECREF(stream->trailers);
    Py_DECREF(stream->number);
    free(stream);
}

static int push(Session *self, Stream *stream, PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "data must be bytes");
        return -1;
    }
    if (PyBytes_Size(data) == 0)
        return 0;
    if (stream->count == stream->room) {
        const size_t room = stream->room ? 2 * stream->room : 4;
        PyObject **queue = malloc(room * sizeof *queue);
        if (queue == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < stream->count; i++)
            queue[i] = stream->queue[(stream->first + i) % stream->room];
        free(stream->queue);
        stream->queue = queue;
        stream->room = room;
        stream->first = 0;
    }
    Py_INCREF(data);
    stream->queue[(stream->first + stream->count++) % stream->room] = data;
    stream->queued += (size_t)PyBytes_Size(data);
    self->queued += (size_t)PyBytes_Size(data);
    return 0;
}

/* --- events. What fails here is remembered, and the library told to stop. */

static int fail(Session *self)
{
    self->failed = 1;
    return NG_ERR_CALLBACK;
}

/* Takes `payload`; NULL: an exception is set. Returns the event, borrowed. */
static PyObject *tell(Session *self, long kind, PyObject *number, PyObject *payload, int flag)
{
    PyObject *event = payload == NULL ? NULL : PyTuple_New(4), *what = PyLong_FromLong(kind);
    if (event == NULL || what == NULL) {
        Py_XDECREF(event);
        Py_XDECREF(what);
        Py_XDECREF(payload);
        self->failed = 1;
        return NULL;
    }
    PyObject *end = flag ? Py_True : Py_False;
    Py_INCREF(number);
    Py_INCREF(end);
    PyTuple_SetItem(event, 0, what);
    PyTuple_SetItem(event, 1, number);
    PyTuple_SetItem(event, 2, payload);
    PyTuple_SetItem(event, 3, end);
    const int added = PyList_Append(self->events, event);
    Py_DECREF(event);
    if (added < 0) {
        self->failed = 1;
        return NULL;
    }
    return event;
}

static PyObject *none(void)
{
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *text(const uint8_t *from, size_t size)
{
    PyObject *decoded = PyUnicode_DecodeUTF8((const char *)from, (Py_ssize_t)size, "strict");
    if (decoded == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        decoded = PyUnicode_DecodeLatin1((const char *)from, (Py_ssize_t)size, "strict");
    }
    return decoded;
}

static void *grown(void *of, Py_ssize_t count, Py_ssize_t *room, size_t each)
{
    if (count < *room)
        return of;
    const Py_ssize_t wanted = *room ? 2 * *room : 16;
    void *more = realloc(of, (size_t)wanted * each);
    if (more == NULL)
        PyErr_NoMemory();
    else
        *room = wanted;
    return more;
}

/* --- callbacks of the library: what arrives */

static int on_begin_frame(ng_session *session, const ng_frame_hd *hd, void *data)
{
    Session *self = data;
    (void)session;
    if (hd->type != NG_CONTINUATION)
        self->continuations = 0;
    else if (++self->continuations > self->max_continuations)
        return NG_ERR_CALLBACK;
    return 0;
}

static int on_begin_headers(ng_session *session, const ng_frame *frame, void *data)
{
    Session *self = data;
    (void)session;
    Stream *stream = find(self, frame->hd.stream_id);
    self->block = frame->hd.stream_id;
    if (stream == NULL && (!self->server || (stream = add(self, frame->hd.stream_id)) == NULL))
        return self->server ? fail(self) : 0;
    stream->header_bytes = 0;
    Py_XDECREF(stream->headers);
    stream->headers = PyList_New(0);
    return stream->headers == NULL ? fail(self) : 0;
}

static int on_header(ng_session *session, const ng_frame *frame, const uint8_t *name, size_t name_size, const uint8_t *value,
                     size_t value_size, uint8_t flags, void *data)
{
    Session *self = data;
    (void)session;
    (void)flags;
    Stream *stream = find(self, frame->hd.stream_id);
    if (stream == NULL || stream->headers == NULL)
        return 0;
    stream->header_bytes += name_size + value_size + OVERHEAD;
    if (stream->header_bytes > FAR_BEYOND * self->max_header_bytes) {
        self->noise += BOMB;
        return NG_ERR_TEMPORAL; /* resets the stream: the rest of the block is not even looked at */
    }
    if (stream->header_bytes > self->max_header_bytes)
        return 0; /* told at the end of the block */
    PyObject *pair = PyTuple_New(2), *key = text(name, name_size), *what = text(value, value_size);
    if (pair == NULL || key == NULL || what == NULL) {
        Py_XDECREF(pair);
        Py_XDECREF(key);
        Py_XDECREF(what);
        return fail(self);
    }
    PyTuple_SetItem(pair, 0, key);
    PyTuple_SetItem(pair, 1, what);
    const int added = PyList_Append(stream->headers, pair);
    Py_DECREF(pair);
    return added < 0 ? fail(self) : 0;
}

static int on_invalid_header(ng_session *session, const ng_frame *frame, const uint8_t *name, size_t name_size,
                             const uint8_t *value, size_t value_size, uint8_t flags, void *data)
{
    (void)session, (void)frame, (void)name, (void)name_size, (void)value, (void)value_size, (void)flags, (void)data;
    return NG_ERR_TEMPORAL; /* resets the stream: nothing is left out in silence */
}

static int on_headers(Session *self, Stream *stream, int end)
{
    PyObject *headers = stream->headers;
    self->block = 0;
    if (headers == NULL)
        return 0;
    stream->headers = NULL;
    PyObject *block = stream->header_bytes > self->max_header_bytes ? none() : PyList_AsTuple(headers);
    Py_DECREF(headers);
    return tell(self, HEADERS, stream->number, block, end) == NULL ? fail(self) : 0;
}

static int on_data_end(Session *self, Stream *stream)
{
    if (stream->arriving < 0)
        return tell(self, DATA, stream->number, PyBytes_FromStringAndSize(NULL, 0), 1) == NULL ? fail(self) : 0;
    PyObject *event = self->arrivals[stream->arriving].event;
    Py_INCREF(Py_True);
    return PyTuple_SetItem(event, 3, Py_True) < 0 ? fail(self) : 0;
}

static int on_frame_recv(ng_session *session, const ng_frame *frame, void *data)
{
    Session *self = data;
    (void)session;
    const int end = (frame->hd.flags & NG_FLAG_END_STREAM) != 0;
    Stream *stream = NULL;
    switch (frame->hd.type) {
    case NG_HEADERS:
    case NG_DATA:
        if (frame->hd.type == NG_DATA && frame->hd.length == 0 && !end)
            self->noise++;
        stream = find(self, frame->hd.stream_id);
        if (stream == NULL)
            return 0;
        stream->remote_end |= end;
        if (frame->hd.type == NG_HEADERS)
            return on_headers(self, stream, end);
        return end ? on_data_end(self, stream) : 0;
    case NG_SETTINGS:
        if (frame->hd.flags & NG_FLAG_ACK)
            return 0;
        self->noise++;
        PyObject *zero = PyLong_FromLong(0);
        if (zero == NULL)
            return fail(self);
        const int told = tell(self, SETTINGS, zero, none(), 0) != NULL;
        Py_DECREF(zero);
        return told ? 0 : fail(self);
    case NG_GOAWAY: {
        PyObject *last = PyLong_FromLong(frame->goaway.last_stream_id);
        if (last == NULL)
            return fail(self);
        const int gone = tell(self, GOAWAY, last, PyLong_FromUnsignedLong(frame->goaway.error_code), 0) != NULL;
        Py_DECREF(last);
        return gone ? 0 : fail(self);
    }
    case NG_PING:
    case NG_PRIORITY:
        self->noise += !(frame->hd.type == NG_PING && (frame->hd.flags & NG_FLAG_ACK));
        return 0;
    default:
        return 0;
    }
}

static int on_data_chunk(ng_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t size, void *data)
{
    Session *self = data;
    (void)flags;
    const int consumed = api.session_consume_connection(session, size);
    if (consumed != 0)
        return NG_ERR_CALLBACK;
    Stream *stream = find(self, id);
    if (stream == NULL || size == 0)
        return 0;
    void *pieces = grown(self->pieces, self->pieces_count, &self->pieces_room, sizeof *self->pieces);
    if (pieces == NULL)
        return fail(self);
    self->pieces = pieces;
    if (stream->arriving < 0) {
        void *arrivals = grown(self->arrivals, self->arrivals_count, &self->arrivals_room, sizeof *self->arrivals);
        if (arrivals == NULL)
            return fail(self);
        self->arrivals = arrivals;
        PyObject *event = tell(self, DATA, stream->number, none(), 0);
        if (event == NULL)
            return NG_ERR_CALLBACK;
        stream->arriving = self->arrivals_count;
        self->arrivals[self->arrivals_count++] = (Arrival){.event = event, .first = -1, .last = -1};
    }
    Arrival *arrival = &self->arrivals[stream->arriving];
    self->pieces[self->pieces_count] = (Piece){.data = bytes, .size = size, .next = -1};
    if (arrival->last < 0)
        arrival->first = self->pieces_count;
    else
        self->pieces[arrival->last].next = self->pieces_count;
    arrival->last = self->pieces_count++;
    arrival->size += size;
    return 0;
}

/* Every DATA event gets its bytes; afterwards nothing points into the buffer that was read. */
static int gather(Session *self)
{
    int good = 0;
    for (Py_ssize_t i = 0; i < self->arrivals_count; i++) {
        const Arrival *arrival = &self->arrivals[i];
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)arrival->size);
        char *to = bytes == NULL ? NULL : PyBytes_AsString(bytes);
        if (bytes == NULL) { /* the others go on to their end, so that no stream points at what is gone */
            good = -1;
            bytes = none();
        }
        for (Py_ssize_t at = arrival->first; to != NULL && at >= 0; at = self->pieces[at].next) {
            memcpy(to, self->pieces[at].data, self->pieces[at].size);
            to += self->pieces[at].size;
        }
        Stream *stream = NULL;
        PyObject *number = PyTuple_GetItem(arrival->event, 1);
        if (number != NULL && (stream = find(self, (int32_t)PyLong_AsLong(number))) != NULL)
            stream->arriving = -1;
        PyTuple_SetItem(arrival->event, 2, bytes);
    }
    self->arrivals_count = self->pieces_count = 0;
    return good;
}

static int on_stream_close(ng_session *session, int32_t id, uint32_t code, void *data)
{
    Session *self = data;
    (void)session;
    Stream *stream = find(self, id);
    if (id == self->block)
        self->block = 0;
    if (stream == NULL)
        return 0;
    int told = 1;
    const int unanswered = self->server && !stream->local_end; /* reset with no error is a reset, too */
    if (!stream->reset_here && (code != 0 || !stream->remote_end || stream->queued > 0 || unanswered)) {
        const unsigned long why = self->server || stream->sent ? code : NG_REFUSED_STREAM_CODE;
        told = tell(self, CLOSED, stream->number, PyLong_FromUnsignedLong(why), 0) != NULL;
    }
    drop(self, stream);
    return told ? 0 : fail(self);
}

/* --- callbacks of the library: what leaves */

static int pairs_of(PyObject *headers, ng_nv *nv, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GetItem(headers, i);
        if (pair == NULL || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "headers must be a tuple of pairs");
            return -1;
        }
        const char *parts[2];
        Py_ssize_t sizes[2];
        for (Py_ssize_t j = 0; j < 2; j++) {
            PyObject *part = PyTuple_GetItem(pair, j);
            if (PyBytes_Check(part)) {
                char *bytes;
                if (PyBytes_AsStringAndSize(part, &bytes, &sizes[j]) < 0)
                    return -1;
                parts[j] = bytes;
            } else if ((parts[j] = PyUnicode_AsUTF8AndSize(part, &sizes[j])) == NULL)
                return -1;
        }
        nv[i] = (ng_nv){(uint8_t *)(uintptr_t)parts[0], (uint8_t *)(uintptr_t)parts[1], (size_t)sizes[0], (size_t)sizes[1], 0};
    }
    return 0;
}

/* The pairs of a tuple for the library, which copies them: into `few`, or what must be freed. NULL: an exception is set. */
static ng_nv *block_of(PyObject *headers, ng_nv *few, size_t *count)
{
    const Py_ssize_t size = PyTuple_Check(headers) ? PyTuple_Size(headers) : -1;
    if (size < 0 || size > MOST_HEADERS) {
        PyErr_SetString(PyExc_TypeError, "headers must be a tuple, and not that long");
        return NULL;
    }
    ng_nv *nv = size <= FEW_HEADERS ? few : malloc((size_t)size * sizeof *nv);
    if (nv == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (pairs_of(headers, nv, size) < 0) {
        if (nv != few)
            free(nv);
        return NULL;
    }
    *count = (size_t)size;
    return nv;
}

static int trail(Session *self, Stream *stream)
{
    ng_nv few[FEW_HEADERS];
    size_t count;
    ng_nv *nv = block_of(stream->trailers, few, &count);
    if (nv == NULL)
        return -1;
    const int result = api.submit_trailer(self->session, stream->id, nv, count);
    if (nv != few)
        free(nv);
    return result;
}

static ssize_t on_read(ng_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags, ng_data_source *source,
                       void *data)
{
    Session *self = data;
    (void)session, (void)buffer, (void)source;
    Stream *stream = find(self, id);
    if (stream == NULL)
        return NG_ERR_TEMPORAL;
    if (stream->queued == 0 && !stream->ended)
        return NG_ERR_DEFERRED;
    const size_t size = stream->queued < length ? stream->queued : length;
    *flags = NG_DATA_NO_COPY;
    if (stream->ended && size == stream->queued) {
        *flags |= NG_DATA_EOF;
        if (stream->trailers != NULL) {
            *flags |= NG_DATA_NO_END_STREAM;
            if (!stream->trailed && trail(self, stream) != 0)
                return PyErr_Occurred() ? fail(self) : NG_ERR_TEMPORAL;
            stream->trailed = 1;
        }
    }
    return (ssize_t)size;
}

/* Room for `more` bytes of output: in the session's own buffer, or in the object that is handed out. */
static int room_for(Session *self, size_t more)
{
    if (self->out_room - self->out_size >= more)
        return 0;
    size_t room = self->out_room ? self->out_room : 4096;
    while (room - self->out_size < more)
        room *= 2;
    if (self->handed != NULL) {
        if (PyByteArray_Resize(self->handed, (Py_ssize_t)room) < 0)
            return -1;
        self->out = (uint8_t *)PyByteArray_AsString(self->handed);
    } else {
        uint8_t *own = realloc(self->own, room);
        if (own == NULL)
            return -1;
        self->out = self->own = own;
        self->own_room = room;
    }
    self->out_room = room;
    return 0;
}

static int on_send_data(ng_session *session, ng_frame *frame, const uint8_t *head, size_t length, ng_data_source *source,
                        void *data)
{
    Session *self = data;
    (void)session, (void)source;
    Stream *stream = find(self, frame->hd.stream_id);
    if (self->out_size >= self->out_limit)
        return NG_ERR_WOULDBLOCK;
    if (stream == NULL || stream->queued < length)
        return NG_ERR_TEMPORAL;
    if (room_for(self, length + 9) < 0)
        return NG_ERR_CALLBACK;
    memcpy(self->out + self->out_size, head, 9);
    self->out_size += 9;
    stream->queued -= length;
    self->queued -= length;
    while (length > 0) {
        PyObject *bytes = stream->queue[stream->first];
        const size_t left = (size_t)PyBytes_Size(bytes) - stream->offset, size = left < length ? left : length;
        memcpy(self->out + self->out_size, PyBytes_AsString(bytes) + stream->offset, size);
        self->out_size += size;
        length -= size;
        stream->offset += size;
        if (size == left) {
            stream->first = (stream->first + 1) % stream->room;
            stream->count--;
            stream->offset = 0;
            Py_DECREF(bytes);
        }
    }
    if (stream->queued == 0 && stream->notify) {
        stream->notify = 0;
        if (tell(self, DRAINED, stream->number, none(), 0) == NULL)
            return fail(self);
    }
    return 0;
}

static ssize_t on_read_length(ng_session *session, uint8_t type, int32_t id, int32_t connection, int32_t stream, uint32_t frame,
                              void *data)
{
    (void)session, (void)type, (void)id, (void)data;
    const int32_t window = connection < stream ? connection : stream, most = frame < FRAME ? (int32_t)frame : FRAME;
    return window < most ? window : most;
}

static int on_frame_send(ng_session *session, const ng_frame *frame, void *data)
{
    Session *self = data;
    (void)session;
    self->noise += frame->hd.type == NG_RST_STREAM;
    if (frame->hd.type != NG_HEADERS && frame->hd.type != NG_DATA)
        return 0;
    Stream *stream = find(self, frame->hd.stream_id);
    if (stream != NULL) {
        stream->sent = 1;
        stream->local_end |= (frame->hd.flags & NG_FLAG_END_STREAM) != 0;
    }
    return 0;
}

/* --- the object */

static PyObject *failure(Session *self, const char *doing, ssize_t code)
{
    if (PyErr_Occurred())
        return NULL;
    if (code == NG_ERR_NOMEM)
        return PyErr_NoMemory();
    (void)self;
    PyErr_Format(ProtocolError, "%s: %s", doing, api.strerror((int)code));
    return NULL;
}

static int enter(Session *self)
{
    if (self->session == NULL || self->busy) {
        PyErr_SetString(PyExc_RuntimeError, self->busy ? "the session is in use" : "there is no session");
        return -1;
    }
    return 0;
}

static ng_callbacks *callbacks(void)
{
    ng_callbacks *made = NULL;
    if (api.session_callbacks_new(&made) != 0)
        return NULL;
    api.session_callbacks_set_on_begin_frame_callback(made, on_begin_frame);
    api.session_callbacks_set_on_begin_headers_callback(made, on_begin_headers);
    api.session_callbacks_set_on_header_callback(made, on_header);
    api.session_callbacks_set_on_invalid_header_callback(made, on_invalid_header);
    api.session_callbacks_set_on_frame_recv_callback(made, on_frame_recv);
    api.session_callbacks_set_on_frame_send_callback(made, on_frame_send);
    api.session_callbacks_set_on_data_chunk_recv_callback(made, on_data_chunk);
    api.session_callbacks_set_on_stream_close_callback(made, on_stream_close);
    api.session_callbacks_set_send_data_callback(made, on_send_data);
    api.session_callbacks_set_data_source_read_length_callback(made, on_read_length);
    return made;
}

static int open_session(Session *self, Py_ssize_t acks, Py_ssize_t resets)
{
    ng_callbacks *made = callbacks();
    ng_option *option = NULL;
    int result = made == NULL || api.option_new(&option) != 0 ? NG_ERR_NOMEM : 0;
    if (result == 0) {
        api.option_set_no_auto_window_update(option, 1);
        api.option_set_no_closed_streams(option, 1);
        api.option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1); /* gRPC allows blanks there */
        api.option_set_max_outbound_ack(option, (size_t)acks);
        api.option_set_max_continuations(option, self->max_continuations);
        api.option_set_stream_reset_rate_limit(option, (uint64_t)resets, (uint64_t)resets);
        api.option_set_max_send_header_block_length(option, 2 * 1024 * 1024);
        result = self->server ? api.session_server_new2(&self->session, made, self, option)
                              : api.session_client_new2(&self->session, made, self, option);
    }
    if (option != NULL)
        api.option_del(option);
    if (made != NULL)
        api.session_callbacks_del(made);
    return result;
}

static PyObject *session_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"server", "stream_window", "connection_window", "max_frame", "max_streams", "max_header_bytes",
                            "max_continuations", "max_acks", "max_resets", NULL};
    int server, stream_window, connection_window, frame;
    Py_ssize_t streams, header_bytes, continuations, acks, resets;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "piiinnnnn", names, &server, &stream_window, &connection_window, &frame,
                                     &streams, &header_bytes, &continuations, &acks, &resets))
        return NULL;
    if (stream_window < 0 || connection_window < 65535 || frame < 16384 || frame > 16777215 || streams < 0 ||
        streams > INT32_MAX || header_bytes < 0 || header_bytes > INT32_MAX || continuations < 0 || acks < 1 || resets < 1) {
        PyErr_SetString(PyExc_ValueError, "a window or limit is out of bounds");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Session *self = (Session *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->server = server;
    self->max_header_bytes = (size_t)header_bytes;
    self->max_continuations = (size_t)continuations;
    self->events = PyList_New(0);
    if (self->events == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    int result = open_session(self, acks, resets);
    const ng_settings_entry entries[] = {
        {NG_MAX_CONCURRENT_STREAMS, (uint32_t)streams},
        {NG_INITIAL_WINDOW_SIZE, (uint32_t)stream_window},
        {NG_MAX_FRAME_SIZE, (uint32_t)frame},
        {NG_MAX_HEADER_LIST_SIZE, (uint32_t)header_bytes},
        {NG_ENABLE_PUSH, 0},
    };
    if (result == 0)
        result = api.submit_settings(self->session, 0, entries, server ? 4 : 5);
    if (result == 0)
        result = api.session_set_local_window_size(self->session, 0, 0, connection_window);
    if (result != 0) {
        failure(self, "session", result);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void session_dealloc(Session *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    if (self->session != NULL)
        api.session_del(self->session);
    for (size_t i = 0; i < BUCKETS; i++)
        while (self->buckets[i] != NULL)
            drop(self, self->buckets[i]);
    Py_XDECREF(self->events);
    free(self->arrivals);
    free(self->pieces);
    Py_XDECREF(self->handed);
    free(self->own);
    release(self);
    Py_DECREF(type);
}

/* receive(data) -> [(kind, stream, payload, end), ...] */
static PyObject *session_receive(Session *self, PyObject *data)
{
    Py_buffer view;
    if (enter(self) < 0 || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    self->busy = 1;
    const ssize_t taken = api.session_mem_recv(self->session, view.buf, (size_t)view.len);
    const int gathered = gather(self);
    self->busy = self->failed = 0;
    PyBuffer_Release(&view);
    if (taken < 0 || gathered < 0)
        return failure(self, "receive", taken);
    PyObject *fresh = PyList_New(0); /* which may run anything: what is there is looked at afterwards */
    if (fresh == NULL)
        return NULL;
    PyObject *events = self->events;
    self->events = fresh;
    return events;
}

/* take() -> events that sending brought about */
static PyObject *session_take(Session *self, PyObject *unused)
{
    (void)unused;
    PyObject *fresh = enter(self) < 0 ? NULL : PyList_New(0);
    if (fresh == NULL)
        return NULL;
    PyObject *events = self->events;
    self->events = fresh;
    return events;
}

/* Much is written into what is handed out, little into a buffer that stays. */
static int begin_output(Session *self, size_t limit)
{
    self->out_limit = limit;
    self->out_size = 0;
    self->out = self->own;
    self->out_room = self->own_room;
    const size_t most = self->queued < limit ? self->queued : limit;
    if (most < FRAME)
        return 0;
    self->handed = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(most + FRAME + 4096));
    if (self->handed == NULL)
        return -1;
    self->out = (uint8_t *)PyByteArray_AsString(self->handed);
    self->out_room = most + FRAME + 4096;
    return 0;
}

static PyObject *end_output(Session *self)
{
    PyObject *handed = self->handed;
    self->handed = NULL;
    self->out = NULL;
    if (handed == NULL)
        return PyBytes_FromStringAndSize((const char *)self->own, (Py_ssize_t)self->out_size);
    if (PyByteArray_Resize(handed, (Py_ssize_t)self->out_size) < 0) {
        Py_DECREF(handed);
        return NULL;
    }
    return handed;
}

/* send(limit) -> bytes or bytearray: what is to be written now, not much more than limit */
static PyObject *session_send(Session *self, PyObject *limit)
{
    const Py_ssize_t most = PyLong_AsSsize_t(limit);
    if ((most == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    if (begin_output(self, most < 1 ? 1 : (size_t)most) < 0)
        return NULL;
    self->busy = 1;
    ssize_t size = 0;
    while (self->out_size < self->out_limit) {
        const uint8_t *data;
        size = api.session_mem_send(self->session, &data);
        if (size <= 0)
            break;
        if (room_for(self, (size_t)size) < 0) {
            size = NG_ERR_NOMEM;
            break;
        }
        memcpy(self->out + self->out_size, data, (size_t)size);
        self->out_size += (size_t)size;
    }
    self->busy = self->failed = 0;
    PyObject *output = size < 0 || PyErr_Occurred() ? NULL : end_output(self);
    if (output == NULL) {
        Py_CLEAR(self->handed);
        return failure(self, "send", size);
    }
    return output;
}

static int id_of(PyObject *number, int32_t *id)
{
    const long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < 0 || value > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "there is no such stream");
        return -1;
    }
    *id = (int32_t)value;
    return 0;
}

/* Bytes of the stream that the windows do not let through yet; -1: the stream is gone. */
static PyObject *waiting(Session *self, Stream *stream)
{
    if (stream == NULL)
        return PyLong_FromLong(-1);
    /* a request that has not left yet has no window to ask for */
    const int unknown = !self->server && !stream->sent;
    const int32_t of_stream = unknown ? 65535 : api.session_get_stream_remote_window_size(self->session, stream->id);
    const int32_t of_connection = api.session_get_remote_window_size(self->session);
    const size_t through = of_stream > 0 ? (size_t)of_stream : 0, past = of_connection > 0 ? (size_t)of_connection : 0;
    /* what the connection lets through is for all of its streams */
    const size_t own = stream->queued > through ? stream->queued - through : 0;
    const size_t shared = self->queued > past && stream->queued > 0 ? self->queued - past : 0;
    return PyLong_FromSize_t(own > shared ? own : shared);
}

static int push_all(Session *self, Stream *stream, PyObject *const *args, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (push(self, stream, args[i]) < 0)
            return -1;
    return 0;
}

static int set_trailers(Stream *stream, PyObject *trailers)
{
    ng_nv few[FEW_HEADERS];
    size_t count;
    ng_nv *nv = block_of(trailers, few, &count); /* what cannot be sent is said now */
    if (nv == NULL)
        return -1;
    if (nv != few)
        free(nv);
    PyObject *old = stream->trailers;
    Py_INCREF(trailers);
    stream->trailers = trailers;
    Py_XDECREF(old);
    return 0;
}

/* respond(stream, headers, trailers, *data) -> bytes held back by windows, or -1.
 * trailers: a tuple, which ends the stream after the data; None: it goes on; False: the headers end it. */
static PyObject *session_respond(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id;
    if (count < 3) {
        PyErr_SetString(PyExc_TypeError, "respond() takes a stream, headers and trailers");
        return NULL;
    }
    if (enter(self) < 0 || id_of(args[0], &id) < 0)
        return NULL;
    Stream *stream = find(self, id);
    if (stream == NULL)
        return PyLong_FromLong(-1);
    if (stream->sent) {
        PyErr_SetString(PyExc_ValueError, "the stream has been answered");
        return NULL;
    }
    ng_nv few[FEW_HEADERS];
    size_t size;
    ng_nv *nv = block_of(args[1], few, &size);
    if (nv == NULL)
        return NULL;
    const int only = args[2] == Py_False;
    int result = 0;
    if (!only && args[2] != Py_None)
        result = set_trailers(stream, args[2]);
    if (args[2] != Py_None)
        stream->ended = 1;
    if (result == 0 && push_all(self, stream, args + 3, count - 3) == 0) {
        const ng_data_provider provider = {.source = {.ptr = NULL}, .read_callback = on_read};
        stream->sent = 1;
        result = api.submit_response(self->session, id, nv, size, only ? NULL : &provider);
    }
    if (nv != few)
        free(nv);
    if (result != 0 || PyErr_Occurred())
        return failure(self, "respond", result);
    return waiting(self, stream);
}

/* request(headers, end, *data) -> stream */
static PyObject *session_request(Session *self, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "request() takes headers and whether the data end it");
        return NULL;
    }
    const int end = enter(self) < 0 ? -1 : PyObject_IsTrue(args[1]);
    ng_nv few[FEW_HEADERS];
    size_t size;
    ng_nv *nv = end < 0 ? NULL : block_of(args[0], few, &size);
    if (nv == NULL)
        return NULL;
    const ng_data_provider provider = {.source = {.ptr = NULL}, .read_callback = on_read};
    const int32_t id = api.submit_request(self->session, NULL, nv, size, &provider, NULL);
    if (nv != few)
        free(nv);
    if (id < 0)
        return failure(self, "request", id);
    Stream *stream = add(self, id);
    if (stream == NULL)
        return NULL;
    stream->ended = end;
    if (push_all(self, stream, args + 2, count - 2) < 0) {
        stream->reset_here = 1;
        api.submit_rst_stream(self->session, 0, id, NG_CANCEL_CODE);
        return NULL;
    }
    Py_INCREF(stream->number);
    return stream->number;
}

/* write(stream, *data) -> bytes held back by windows, or -1 */
static PyObject *session_write(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id;
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "write() takes a stream and data");
        return NULL;
    }
    if (enter(self) < 0 || id_of(args[0], &id) < 0)
        return NULL;
    Stream *stream = find(self, id);
    if (stream == NULL)
        return PyLong_FromLong(-1);
    if (stream->ended) {
        PyErr_SetString(PyExc_ValueError, "the stream has ended");
        return NULL;
    }
    if (push_all(self, stream, args + 1, count - 1) < 0)
        return NULL;
    api.session_resume_data(self->session, id);
    return waiting(self, stream);
}

/* finish(stream, trailers | None) -> bytes held back by windows, or -1 */
static PyObject *session_finish(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "finish() takes a stream and trailers");
        return NULL;
    }
    if (enter(self) < 0 || id_of(args[0], &id) < 0)
        return NULL;
    Stream *stream = find(self, id);
    if (stream == NULL || stream->ended)
        return PyLong_FromLong(-1);
    if (args[1] != Py_None && set_trailers(stream, args[1]) < 0)
        return NULL;
    stream->ended = 1;
    api.session_resume_data(self->session, id);
    return waiting(self, stream);
}

/* notify(stream) -> bytes that have not left; if any, a DRAINED event will follow: once, when all of them have */
static PyObject *session_notify(Session *self, PyObject *number)
{
    int32_t id;
    if (enter(self) < 0 || id_of(number, &id) < 0)
        return NULL;
    Stream *stream = find(self, id);
    if (stream == NULL || stream->queued == 0)
        return PyLong_FromLong(0);
    stream->notify = 1;
    return PyLong_FromSize_t(stream->queued);
}

/* reset(stream, code): no event follows */
static PyObject *session_reset(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id, code;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "reset() takes a stream and a code");
        return NULL;
    }
    if (enter(self) < 0 || id_of(args[0], &id) < 0 || id_of(args[1], &code) < 0)
        return NULL;
    Stream *stream = find(self, id);
    if (stream == NULL)
        Py_RETURN_NONE;
    stream->reset_here = 1;
    empty(self, stream);
    const int result = api.submit_rst_stream(self->session, 0, id, (uint32_t)code);
    if (result != 0)
        return failure(self, "reset", result);
    Py_RETURN_NONE;
}

/* consume(stream, bytes): its window is opened again by so much */
static PyObject *session_consume(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "consume() takes a stream and bytes");
        return NULL;
    }
    const Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if ((size == -1 && PyErr_Occurred()) || enter(self) < 0 || id_of(args[0], &id) < 0)
        return NULL;
    if (size > 0 && find(self, id) != NULL) {
        const int result = api.session_consume_stream(self->session, id, (size_t)size);
        if (result != 0)
            return failure(self, "consume", result);
    }
    Py_RETURN_NONE;
}

/* enlarge(stream, window): the stream's window from now on */
static PyObject *session_enlarge(Session *self, PyObject *const *args, Py_ssize_t count)
{
    int32_t id, window;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "enlarge() takes a stream and a window");
        return NULL;
    }
    if (enter(self) < 0 || id_of(args[0], &id) < 0 || id_of(args[1], &window) < 0)
        return NULL;
    const Stream *stream = find(self, id);
    if (stream != NULL && !stream->remote_end) {
        const int result = api.session_set_local_window_size(self->session, 0, id, window);
        if (result != 0)
            return failure(self, "enlarge", result);
    }
    Py_RETURN_NONE;
}

/* goaway(code | None): no new streams; None: a notice ahead of it, after which streams still come in */
static PyObject *session_goaway(Session *self, PyObject *code)
{
    int32_t why = 0;
    if (enter(self) < 0 || (code != Py_None && id_of(code, &why) < 0))
        return NULL;
    const int32_t last = api.session_get_last_proc_stream_id(self->session);
    const int result = code == Py_None ? api.submit_shutdown_notice(self->session)
                                       : api.submit_goaway(self->session, 0, last, (uint32_t)why, NULL, 0);
    if (result != 0)
        return failure(self, "goaway", result);
    Py_RETURN_NONE;
}

static PyObject *session_ping(Session *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0)
        return NULL;
    const int result = api.submit_ping(self->session, 0, NULL);
    if (result != 0)
        return failure(self, "ping", result);
    Py_RETURN_NONE;
}

static PyObject *get_alive(Session *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(api.session_want_read(self->session) || api.session_want_write(self->session));
}

static PyObject *get_want_write(Session *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(api.session_want_write(self->session));
}

static PyObject *get_may_request(Session *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(api.session_check_request_allowed(self->session));
}

static PyObject *get_pending(Session *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(PyList_Size(self->events) > 0);
}

static PyObject *get_noise(Session *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->noise);
}

static PyObject *get_in_block(Session *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->block != 0);
}

static PyObject *get_queued(Session *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(self->queued);
}

static PyObject *get_waiting(Session *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(api.session_get_outbound_queue_size(self->session));
}

static PyGetSetDef attributes[] = {
    {"alive", (getter)get_alive, NULL, "whether anything is still to be read or written", NULL},
    {"want_write", (getter)get_want_write, NULL, "whether send() has something", NULL},
    {"may_request", (getter)get_may_request, NULL, "whether requests can still be made", NULL},
    {"pending", (getter)get_pending, NULL, "whether take() has something", NULL},
    {"noise", (getter)get_noise, NULL, "frames that carry nothing, and streams reset from this side", NULL},
    {"in_block", (getter)get_in_block, NULL, "whether a block of headers has begun and not ended", NULL},
    {"waiting", (getter)get_waiting, NULL, "frames that have not left", NULL},
    {"queued", (getter)get_queued, NULL, "bytes of data that have not left", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)session_receive, METH_O, NULL},
    {"take", (PyCFunction)session_take, METH_NOARGS, NULL},
    {"send", (PyCFunction)session_send, METH_O, NULL},
    {"request", FAST(session_request), METH_FASTCALL, NULL},
    {"respond", FAST(session_respond), METH_FASTCALL, NULL},
    {"write", FAST(session_write), METH_FASTCALL, NULL},
    {"finish", FAST(session_finish), METH_FASTCALL, NULL},
    {"notify", (PyCFunction)session_notify, METH_O, NULL},
    {"reset", FAST(session_reset), METH_FASTCALL, NULL},
    {"consume", FAST(session_consume), METH_FASTCALL, NULL},
    {"enlarge", FAST(session_enlarge), METH_FASTCALL, NULL},
    {"goaway", (PyCFunction)session_goaway, METH_O, NULL},
    {"ping", (PyCFunction)session_ping, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_new, session_new}, {Py_tp_dealloc, session_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, attributes}, {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "guard._nghttp2.Session", .basicsize = sizeof(Session), .flags = Py_TPFLAGS_DEFAULT, .slots = type_slots,
};

static PyMethodDef functions[] = {
    {"check", check, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    Api found;
    if (load(LIBRARY, &found) < 0)
        return -1;
    api = found;
    if (ProtocolError == NULL) { /* once a process, as `api` */
        PyObject *word = PyUnicode_FromString("guard._nghttp2");
        const Py_hash_t hash = word == NULL ? -1 : PyObject_Hash(word); /* another one in each process */
        Py_XDECREF(word);
        if (hash == -1)
            return -1;
        multiplier = (uint32_t)((uint64_t)hash >> 16) | 1u;
        ProtocolError = PyErr_NewException("guard._nghttp2.ProtocolError", NULL, NULL);
    }
    PyObject *type = PyType_FromSpec(&type_spec), *version = PyUnicode_FromString(api.version(0)->version_str);
    int result = ProtocolError == NULL || type == NULL || version == NULL ? -1 : 0;
    if (result == 0)
        result = PyModule_AddObjectRef(module, "Session", type) < 0 || PyModule_AddObjectRef(module, "VERSION", version) < 0 ||
                         PyModule_AddObjectRef(module, "ProtocolError", ProtocolError) < 0
                     ? -1
                     : 0;
    Py_XDECREF(type);
    Py_XDECREF(version);
    static const char *const kinds[] = {"HEADERS", "DATA", "CLOSED", "DRAINED", "GOAWAY", "SETTINGS"};
    for (long kind = HEADERS; result == 0 && kind <= SETTINGS; kind++)
        result = PyModule_AddIntConstant(module, kinds[kind], kind);
    return result;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "guard._nghttp2", .m_size = 0, .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__nghttp2(void)
{
    return PyModuleDef_Init(&definition);
}
