/* What numpy takes many small steps for. Each function does what its plain twin does, which the tests hold it against:
 * guard/windows.py, guard/sketching.py, guard/linking.py, guard/wire/scan.py. Arrays come as buffers of the type and size that guard/kernels.py
 * says; sizes are checked here, contents are the caller's (but those of `fields`: they are anybody's). Nothing is kept. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WINDOW = 64, MOST_KEPT = 64, MOST_MOTIONS = 16 };

typedef struct {
    uint64_t values[MOST_KEPT];
    Py_ssize_t room, count, least; /* least: the place of the smallest */
} Largest;

static void find_least(Largest *of)
{
    of->least = 0;
    for (Py_ssize_t i = 1; i < of->count; i++)
        if (of->values[i] < of->values[of->least])
            of->least = i;
}

static void offer(Largest *to, uint64_t value)
{
    if (to->count < to->room) {
        to->values[to->count++] = value;
        find_least(to);
    } else if (value > to->values[to->least]) {
        to->values[to->least] = value;
        find_least(to);
    }
}

static int sized(const char *name, const Py_buffer *of, Py_ssize_t bytes)
{
    if (of->len == bytes)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, not %zd", name, of->len, bytes);
    return 0;
}

/* (M,) uint8 levels in lines of `line`, (M,) uint16 salt, (M,) uint64 weights, (S,) uint64 symbols -> how many of the
 * (K,) uint64 are filled: the largest sums over `width` values, those of windows with an edge before all others. An edge
 * is where a value differs from the one `channels` before it on its line by more than `step`. */
static PyObject *largest_windows(PyObject *module, PyObject *args)
{
    Py_buffer levels, salt, weights, symbols, out;
    Py_ssize_t line, channels, width;
    int step;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*y*nnniw*", &levels, &salt, &weights, &symbols, &line, &channels, &width, &step, &out))
        return NULL;
    const Py_ssize_t size = levels.len, words = symbols.len / 8;
    const Py_ssize_t room = out.len / 8;
    Py_ssize_t filled = -1;
    if (!sized("salt", &salt, 2 * size) || !sized("weights", &weights, 8 * size))
        goto done;
    if (line < 1 || channels < 1 || width < 1 || width > MOST_WINDOW || width > size || room < 1 || room > MOST_KEPT) {
        PyErr_SetString(PyExc_ValueError, "a line, a window or the room for hashes is out of bounds");
        goto done;
    }
    Largest edged = {.room = room}, flat = {.room = room};
    int beyond = 0;
    Py_BEGIN_ALLOW_THREADS
    const uint8_t *level = levels.buf;
    const uint16_t *shift = salt.buf;
    const uint64_t *weight = weights.buf, *symbol = symbols.buf;
    uint64_t ring[MOST_WINDOW] = {0}, sum = 0;
    Py_ssize_t slot = 0, column = 0, edge = -1;
    for (Py_ssize_t at = 0; at < size; at++) {
        const Py_ssize_t salted = (Py_ssize_t)level[at] + shift[at];
        if (salted >= words) {
            beyond = 1;
            break;
        }
        const uint64_t word = symbol[salted] * weight[at];
        sum += word - ring[slot];
        ring[slot] = word;
        slot = slot + 1 == width ? 0 : slot + 1;
        if (column >= channels && abs((int)level[at] - (int)level[at - channels]) > step)
            edge = at;
        column = column + 1 == line ? 0 : column + 1;
        if (at + 1 >= width)
            offer(edge > at - width ? &edged : &flat, sum);
    }
    Py_END_ALLOW_THREADS
    if (beyond) {
        PyErr_SetString(PyExc_ValueError, "a salted level has no symbol");
        goto done;
    }
    /* windows without an edge fill up what the others leave */
    Largest rest = {.room = room - edged.count};
    for (Py_ssize_t i = 0; rest.room > 0 && i < flat.count; i++)
        offer(&rest, flat.values[i]);
    memcpy(out.buf, edged.values, 8 * (size_t)edged.count);
    memcpy((uint64_t *)out.buf + edged.count, rest.values, 8 * (size_t)rest.count);
    filled = edged.count + rest.count;
done:
    PyBuffer_Release(&levels);
    PyBuffer_Release(&salt);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&out);
    return filled < 0 ? NULL : PyLong_FromSsize_t(filled);
}

/* (N, H, W, C) float32, (W,) and (H,) float32 -> (N, 10, H, W, C) float32: as sketching._moved. */
static PyObject *moved(PyObject *module, PyObject *args)
{
    Py_buffer in, across, down, out;
    Py_ssize_t height, width, channels;
    float white, black;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*nnnffw*", &in, &across, &down, &height, &width, &channels, &white, &black, &out))
        return NULL;
    const Py_ssize_t image = height * width * channels;
    int good = 0;
    if (height < 1 || width < 1 || channels < 1 || image > (1 << 24) || in.len % (4 * image)) {
        PyErr_SetString(PyExc_ValueError, "no images of this size");
        goto done;
    }
    if (!sized("across", &across, 4 * width) || !sized("down", &down, 4 * height) || !sized("out", &out, 10 * in.len))
        goto done;
    const float *u = across.buf, *v = down.buf;
    const Py_ssize_t line = width * channels;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t n = 0; n < in.len / (4 * image); n++) {
        const float *x = (const float *)in.buf + n * image;
        float *y = (float *)out.buf + 10 * n * image;
        const float bright = x[0] > white ? x[0] - white : 0.0f, dark = x[0] < black ? black - x[0] : 0.0f;
        for (Py_ssize_t i = 0; i < height; i++) {
            const float *here = x + i * line, *up = i ? here - line : here, *below = i + 1 < height ? here + line : here;
            for (Py_ssize_t j = 0; j < width; j++) {
                const Py_ssize_t left = j ? -channels : 0, right = j + 1 < width ? channels : 0;
                for (Py_ssize_t c = 0; c < channels; c++) {
                    const Py_ssize_t k = j * channels + c;
                    const float dx = here[k + right] - here[k + left], dy = below[k] - up[k], own = here[k];
                    float *to = y + i * line + k;
                    to[0] = dx;
                    to[image] = dy;
                    to[2 * image] = u[j] * dx + v[i] * dy;
                    to[3 * image] = u[j] * dy - v[i] * dx;
                    to[4 * image] = (here[k + left] + here[k + right]) - (own + own);
                    to[5 * image] = (up[k] + below[k]) - (own + own);
                    to[6 * image] = (below[k + right] + up[k + left]) - (below[k + left] + up[k + right]);
                    to[7 * image] = own - x[0];
                    to[8 * image] = (own > white ? own - white : 0.0f) - bright;
                    to[9 * image] = (own < black ? black - own : 0.0f) - dark;
                }
            }
        }
    }
    Py_END_ALLOW_THREADS
    good = 1;
done:
    PyBuffer_Release(&in);
    PyBuffer_Release(&across);
    PyBuffer_Release(&down);
    PyBuffer_Release(&out);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

/* (K, D) float32 motions, (D,) float64 way -> fills (K,) float64 of what each explains of it, one after the other;
 * how many motions there are. */
static Py_ssize_t explain(const float *m, const double *way, Py_ssize_t count, Py_ssize_t size, double (*gram)[MOST_MOTIONS],
                          double ridge, double tiny, double *parts)
{
    Py_ssize_t moving = 0;
    double steps[MOST_MOTIONS];
    for (Py_ssize_t i = 0; i < count; i++) {
        double along = 0.0;
        for (Py_ssize_t d = 0; d < size; d++)
            along += (double)m[i * size + d] * way[d];
        steps[i] = along;
        moving += gram[i][i] > tiny;
    }
    double lower[MOST_MOTIONS][MOST_MOTIONS];
    for (Py_ssize_t i = 0; i < count; i++) {
        for (Py_ssize_t j = 0; j <= i; j++) {
            double left = gram[i][j];
            if (i == j)
                left = gram[i][i] > tiny ? gram[i][i] * (1.0 + ridge) : 1.0;
            for (Py_ssize_t k = 0; k < j; k++)
                left -= lower[i][k] * lower[j][k];
            if (i == j)
                lower[i][i] = sqrt(left > 0.0 ? left : 1e-300);
            else
                lower[i][j] = left / lower[j][j];
        }
        for (Py_ssize_t k = 0; k < i; k++)
            steps[i] -= lower[i][k] * steps[k];
        steps[i] /= lower[i][i];
        parts[i] = steps[i] * steps[i];
    }
    return moving;
}

/* (N, K, D) float32, (N, W, D) float64 -> (N, W, K) float64, (N,) int64: as linking._parts. */
static PyObject *explained(PyObject *module, PyObject *args)
{
    Py_buffer motions, ways, parts, moving;
    Py_ssize_t count, each, size;
    double ridge, tiny;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*nnnddw*w*", &motions, &ways, &count, &each, &size, &ridge, &tiny, &parts, &moving))
        return NULL;
    const Py_ssize_t rows = moving.len / 8;
    int good = 0;
    if (count < 1 || count > MOST_MOTIONS || each < 1 || each > 64 || size < 1 || size > (1 << 16)) {
        PyErr_SetString(PyExc_ValueError, "no motions of this size");
        goto done;
    }
    if (!sized("motions", &motions, 4 * rows * count * size) || !sized("ways", &ways, 8 * rows * each * size) ||
        !sized("parts", &parts, 8 * rows * each * count) || !sized("moving", &moving, 8 * rows))
        goto done;
    for (Py_ssize_t n = 0; n < rows; n++) {
        const float *m = (const float *)motions.buf + n * count * size;
        double gram[MOST_MOTIONS][MOST_MOTIONS];
        for (Py_ssize_t i = 0; i < count; i++)
            for (Py_ssize_t j = 0; j <= i; j++) {
                double sum = 0.0;
                for (Py_ssize_t d = 0; d < size; d++)
                    sum += (double)m[i * size + d] * (double)m[j * size + d];
                gram[i][j] = sum;
            }
        for (Py_ssize_t w = 0; w < each; w++) {
            const double *way = (const double *)ways.buf + (n * each + w) * size;
            double *to = (double *)parts.buf + (n * each + w) * count;
            ((int64_t *)moving.buf)[n] = explain(m, way, count, size, gram, ridge, tiny, to);
        }
    }
    good = 1;
done:
    PyBuffer_Release(&motions);
    PyBuffer_Release(&ways);
    PyBuffer_Release(&parts);
    PyBuffer_Release(&moving);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

/* A variable-length integer of at most ten groups; 0: it does not end before `end`, or is longer. */
static int varint(const uint8_t *body, Py_ssize_t *at, Py_ssize_t end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70 && *at < end; shift += 7) {
        const uint8_t byte = body[(*at)++];
        if (shift == 63 && (byte & 0x7e))
            *value = UINT64_MAX; /* more than 64 bits: of a size or a tag, more than there is */
        else
            *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return 1;
    }
    return 0;
}

/* What scan.fields gives, as a list; of more than `most` fields the first most + 1. None: they do not add up. */
static PyObject *fields(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    Py_ssize_t start, end, most;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnn", &buffer, &start, &end, &most))
        return NULL;
    PyObject *found = NULL;
    if (start < 0 || start > end || end > buffer.len) {
        PyErr_SetString(PyExc_ValueError, "the offsets are out of bounds");
        goto done;
    }
    found = PyList_New(0);
    const uint8_t *body = buffer.buf;
    int sound = 1;
    for (Py_ssize_t at = start; found && at < end && PyList_Size(found) <= most;) {
        uint64_t tag = 0, size = 0;
        if (!varint(body, &at, end, &tag) || tag > UINT32_MAX) {
            sound = 0;
            break;
        }
        Py_ssize_t stop = at;
        switch (tag & 7) {
        case 0:
            sound = varint(body, &stop, end, &size);
            break;
        case 1:
            sound = end - at >= 8;
            stop = at + 8;
            break;
        case 2:
            sound = varint(body, &at, end, &size) && size <= (uint64_t)(end - at);
            stop = at + (sound ? (Py_ssize_t)size : 0);
            break;
        case 5:
            sound = end - at >= 4;
            stop = at + 4;
            break;
        default: /* groups */
            sound = 0;
        }
        if (!sound)
            break;
        PyObject *field = Py_BuildValue(
            "(iOnn)", (int)(tag >> 3), (tag & 7) == 2 ? Py_True : Py_False, at, stop);
        if (!field || PyList_Append(found, field) < 0)
            Py_CLEAR(found);
        Py_XDECREF(field);
        at = stop;
    }
    if (found && !sound) {
        Py_DECREF(found);
        found = Py_NewRef(Py_None);
    }
done:
    PyBuffer_Release(&buffer);
    return found;
}

static PyMethodDef functions[] = {
    {"fields", fields, METH_VARARGS, NULL},
    {"largest_windows", largest_windows, METH_VARARGS, NULL},
    {"moved", moved, METH_VARARGS, NULL},
    {"explained", explained, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "guard._kernels", .m_size = 0, .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kernels(void)
{
    return PyModuleDef_Init(&definition);
}
