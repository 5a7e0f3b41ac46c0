# The functions of fast.py for the compiled engine: see there.

from libc.string cimport memcpy, memcmp
from cpython.object cimport PyObject
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_FromStringAndSize, PyBytes_CheckExact
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.unicode cimport PyUnicode_DecodeUTF8

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
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

cdef inline void fill(const unsigned char *memory, Py_ssize_t start, bytes head, list parts):
    cdef unsigned char *p = <unsigned char *>memory + start
    cdef object part
    memcpy(p, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    p += PyBytes_GET_SIZE(head)
    for part in parts:
        memcpy(p, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        p += PyBytes_GET_SIZE(part)

cdef inline bytes join(bytes head, list parts, Py_ssize_t size):
    cdef bytes joined = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(head) + size)
    fill(<const unsigned char *>PyBytes_AS_STRING(joined), 0, head, parts)
    return joined

cdef inline bytes prefix(bytes front, int tag, Py_ssize_t size):
    """The front, and MessagePack's header with that tag."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(front)
    cdef Py_ssize_t more
    if tag < 0xC0:
        more = 1
    elif tag == 0xC4 or tag == 0xD9:
        more = 2
    elif tag == 0xC6 or tag == 0xDB:
        more = 5
    else:
        more = 3
    cdef bytes made = PyBytes_FromStringAndSize(NULL, length + more)
    cdef unsigned char *p = <unsigned char *>PyBytes_AS_STRING(made)
    memcpy(p, PyBytes_AS_STRING(front), length)
    p += length
    if more == 1:
        p[0] = tag | size
        return made
    p[0] = tag
    if more == 2:
        p[1] = size
    elif more == 3:
        p[1] = size >> 8
        p[2] = size
    else:
        p[1] = size >> 24
        p[2] = size >> 16
        p[3] = size >> 8
        p[4] = size
    return made
