# Types of reader.py for the compiled engine.

cimport cython
from asgi_ipc.wire.batch cimport Batch
from asgi_ipc.wire.packet cimport PacketParser
from asgi_ipc.wire.stream cimport Stream

cdef int _batch

@cython.final
@cython.auto_pickle(False)
cdef class Source:
    cdef readonly Stream stream
    cdef readonly object context

@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    cdef readonly PacketParser parser
    cdef readonly dict sources
    cdef unsigned long _me
    cdef object _reassembler
    cdef object _accept
    cdef object _others

    @cython.locals(parser=PacketParser, source=Source, batch=Batch)
    cpdef void take(self, bytes chunk, bint drained) except *
