# The functions of fast.py for the compiled engine: see there.

from libc.string cimport memcpy, memcmp
from cpython.object cimport PyObject
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_FromStringAndSize, PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.unicode cimport PyUnicode_DecodeUTF8

cdef extern from "Python.h":
    object PyContext_Copy(object)
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    object PyObject_CallOneArg(object, object)
    unsigned long PyThread_get_thread_ident() nogil
    int PyIter_Send(object, object, PyObject **) except -1
    void Py_DECREF(PyObject *)
    Py_ssize_t Py_REFCNT(object)

cdef inline unsigned long thread_id() noexcept:
    return PyThread_get_thread_ident()

cdef inline Py_ssize_t references(object what) noexcept:
    return Py_REFCNT(what)

cdef inline object copied(object context):
    return PyContext_Copy(context)

cdef inline object call_in(object context, object function, object data):
    PyContext_Enter(context)
    try:
        return PyObject_CallOneArg(function, data)
    finally:
        PyContext_Exit(context)

cdef inline object step_in(object context, object coroutine):
    cdef PyObject *result = NULL
    cdef int how
    PyContext_Enter(context)
    try:
        how = PyIter_Send(coroutine, None, &result)
    finally:
        PyContext_Exit(context)
    if how == 0:
        Py_DECREF(result)
        return ...
    found = <object>result
    Py_DECREF(result)
    return found

cdef inline const unsigned char *address(object content) except NULL:
    if PyBytes_CheckExact(content):
        return <const unsigned char *>PyBytes_AS_STRING(content)
    if not PyMemoryView_Check(content):
        raise TypeError("only bytes and a memoryview have an address")
    return <const unsigned char *>PyMemoryView_GET_BUFFER(content).buf

cdef inline bint is_at(const unsigned char *p, Py_ssize_t at, Py_ssize_t stop, bytes what) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(what)
    return at + size <= stop and memcmp(p + at, PyBytes_AS_STRING(what), size) == 0

cdef inline bytes bytes_at(const unsigned char *p, Py_ssize_t start, Py_ssize_t stop):
    return PyBytes_FromStringAndSize(<const char *>p + start, stop - start)

cdef inline str text_at(const unsigned char *p, Py_ssize_t start, Py_ssize_t stop):
    return PyUnicode_DecodeUTF8(<const char *>p + start, stop - start, NULL)

cdef inline bint is_text(const unsigned char *p, Py_ssize_t start, Py_ssize_t stop) except -1:
    cdef unsigned char together = 0
    cdef Py_ssize_t at
    for at in range(start, stop):
        together |= p[at]
    if together < 0x80:
        return True
    try:
        text_at(p, start, stop)
    except UnicodeDecodeError:
        return False
    return True

cdef inline int _copy(unsigned char *p, bytes head, list parts, Py_ssize_t size_bytes) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    cdef object part
    memcpy(p, PyBytes_AS_STRING(head), size)
    p += size
    for part in parts:
        size = PyBytes_GET_SIZE(part)
        size_bytes -= size
        if size_bytes < 0:
            raise ValueError("the parts are larger than their size")
        memcpy(p, PyBytes_AS_STRING(part), size)
        p += size
    if size_bytes:
        raise ValueError("the parts are smaller than their size")
    return 0

cdef inline int fill(object memory, Py_ssize_t start, bytes head, list parts, Py_ssize_t size_bytes) except -1:
    cdef Py_buffer buffer
    PyObject_GetBuffer(memory, &buffer, PyBUF_WRITABLE)
    try:
        if start < 0 or start + PyBytes_GET_SIZE(head) + size_bytes > buffer.len:
            raise ValueError("there is no room to fill")
        return _copy(<unsigned char *>buffer.buf + start, head, parts, size_bytes)
    finally:
        PyBuffer_Release(&buffer)

cdef inline bytes join(bytes head, list parts, Py_ssize_t size_bytes):
    cdef bytes joined = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(head) + size_bytes)
    _copy(<unsigned char *>PyBytes_AS_STRING(joined), head, parts, size_bytes)
    return joined

cdef inline bytes _prefix(bytes front, int tag, int width, Py_ssize_t size_bytes):
    """The front, a tag, and a size in so many bytes."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(front)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, length + 1 + width)
    cdef unsigned char *p = <unsigned char *>PyBytes_AS_STRING(made)
    memcpy(p, PyBytes_AS_STRING(front), length)
    p += length
    p[0] = <unsigned char>tag
    while width:
        p[width] = <unsigned char>(size_bytes & 0xFF)
        size_bytes >>= 8
        width -= 1
    return made

cdef inline bytes _header(bytes front, int tag, Py_ssize_t size_bytes):
    if size_bytes < 1 << 8:
        return _prefix(front, tag, 1, size_bytes)
    if size_bytes < 1 << 16:
        return _prefix(front, tag + 1, 2, size_bytes)
    return _prefix(front, tag + 2, 4, size_bytes)

cdef inline bytes bytes_prefix(bytes front, Py_ssize_t size_bytes):
    return _header(front, 0xC4, size_bytes)

cdef inline bytes text_prefix(bytes front, Py_ssize_t size_bytes):
    if size_bytes < 32:
        return _prefix(front, 0xA0 + <int>size_bytes, 0, 0)
    return _header(front, 0xD9, size_bytes)
