# Types of backpressure.py for the compiled engine.

cimport cython

@cython.final
@cython.auto_pickle(False)
cdef class InFlight:
    cdef object _on_change
    cdef readonly Py_ssize_t calls
    cdef readonly Py_ssize_t size_bytes
    cdef readonly bint is_blocked
