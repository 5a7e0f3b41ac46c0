# Types of handler.py for the compiled engine.

cimport cython

@cython.final
@cython.auto_pickle(False)
cdef class Handler:
    cdef readonly str name
    cdef readonly object function
    cdef readonly bint is_async
    cdef readonly bint ordered
