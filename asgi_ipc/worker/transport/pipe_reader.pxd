# Types of pipe_reader.py for the compiled engine.

cimport cython

@cython.final
@cython.auto_pickle(False)
cdef class PipeReader:
    cdef object _loop
    cdef object _pipe
    cdef object _on_bytes
    cdef object _on_eof
    cdef bint _reading
    cdef bint _is_watched
    cdef Py_ssize_t _refused
    cdef readonly long long read_bytes

    cpdef void _readable(self) except *
    @cython.locals(chunk=bytes, drained=bint)
    cpdef void _read(self) except *
