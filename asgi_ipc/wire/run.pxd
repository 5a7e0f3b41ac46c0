# Types of run.py for the compiled engine.

cimport cython
cimport asgi_ipc.fast as fast

@cython.final
@cython.auto_pickle(False)
cdef class Piece:
    cdef readonly list parts
    cdef readonly Py_ssize_t size_bytes

    cpdef int append(self, bytes prefix, bytes body, Py_ssize_t size_bytes) except -1
    cpdef bytes payload(self)

@cython.final
@cython.auto_pickle(False)
cdef class Run:
    cdef public Py_ssize_t piece_bytes
    cdef object _row
    cdef Piece _last

    @cython.locals(piece=Piece)
    cpdef int append(self, bytes prefix, bytes body, Py_ssize_t size_bytes) except -1
