"""HTTP: uvicorn as the worker runs it: its server, its connections, and the HTTP side of a stop."""
