# Types of stream.py for the compiled engine. Other compiled modules may cimport Stream.
#
# The next number may be one more than 64 bits can say, so it stays Python's.

cimport cython

@cython.final
@cython.auto_pickle(False)
cdef class Stream:
    cdef public object next_number
    cdef public Py_ssize_t total_bytes
    cdef public Py_ssize_t have_bytes
    cdef public list pieces
    cdef public bint is_skipping
    cdef public object memory
    cdef public object reading
    cdef public object owed_serial
    cdef public Py_ssize_t owed_bytes

    cpdef bint take_batch(self, object number) except -1
