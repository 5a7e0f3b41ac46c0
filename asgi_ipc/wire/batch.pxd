# Types of batch.py for the compiled engine. Other compiled modules may cimport Batch.
#
# Another process may write to the memory meanwhile: `_find` reads each byte once (volatile), and compares the
# size that it has read with the end.

cimport cython
cimport asgi_ipc.fast as fast

cdef Py_ssize_t _BATCH_HEADER_BYTES
cdef int _ARRAY16, _ARRAY2, _FIXSTR, _BIN8, _BIN32, _STR8, _STR32, _NIL, _INT64
cdef int _OTHER, _NUMBER, _BYTES, _TEXT
cdef bytes _NUMBER_BYTES, _NO_FRONT
cdef object _decode_number

@cython.final
@cython.auto_pickle(False)
cdef class Batch:
    cdef readonly str name
    cdef readonly object data
    cdef readonly object extra
    cdef readonly Py_ssize_t left
    cdef public Py_ssize_t each_bytes
    cdef readonly Py_ssize_t spoilt
    cdef readonly bint is_overwritten
    cdef object _content
    cdef const unsigned char *_memory
    cdef Py_ssize_t _at
    cdef Py_ssize_t _stop
    cdef Py_ssize_t _block
    cdef bytes _header
    cdef list _decoded
    cdef bytes _front
    cdef Py_ssize_t _value_start
    cdef Py_ssize_t _value_stop

    cpdef bint open(self, object content, Py_ssize_t start, Py_ssize_t stop) except -1
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t, is_batch=bint)
    cpdef bint open_block(self, object memory, object serial, Py_ssize_t offset, Py_ssize_t length) except -1
    cpdef void hold(self, object messages) except *
    cdef void _begin(self) except *
    cdef void _read_from(self, object content, Py_ssize_t start, Py_ssize_t stop) except *
    @cython.locals(count=Py_ssize_t, payload=bytes)
    cdef bint _look_over(self) except -1
    @cython.locals(memory="const unsigned char *", at=Py_ssize_t, stop=Py_ssize_t, count=Py_ssize_t, _=Py_ssize_t, kind=int)
    cdef Py_ssize_t _count(self) except -2
    @cython.locals(kind=int, start=Py_ssize_t, stop=Py_ssize_t)
    cpdef bint next(self) except -1
    @cython.locals(rest=bytes)
    cpdef void copy_rest(self) except *
    cpdef void drop_rest(self) except *
    cdef bint _check_block(self) except -1
    cdef void _lose(self) except *
    @cython.locals(memory="const unsigned char *", stop=Py_ssize_t, behind=Py_ssize_t)
    cdef Py_ssize_t _read_front(self, Py_ssize_t at) except -1
    @cython.locals(memory="const volatile unsigned char *", stop=Py_ssize_t, tag=int, start=Py_ssize_t, size=Py_ssize_t, kind=int, place=Py_ssize_t)
    cdef int _find(self, Py_ssize_t at) except -1
