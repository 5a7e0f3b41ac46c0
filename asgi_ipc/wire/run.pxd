# Types of run.py for the compiled engine.

cimport cython

@cython.final
cdef class Piece:
    cdef readonly list parts
    cdef readonly Py_ssize_t size_bytes

    cpdef object append(self, bytes prefix, bytes body, Py_ssize_t size_bytes)
    cpdef bytes payload(self)

@cython.final
cdef class Run:
    cdef public Py_ssize_t piece_bytes
    cdef readonly Py_ssize_t messages
    cdef readonly Py_ssize_t size_bytes
    cdef object _row
    cdef Piece _last

    @cython.locals(size_bytes=Py_ssize_t, piece=Piece)
    cpdef object append(self, bytes prefix, bytes body)
