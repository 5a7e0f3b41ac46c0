"""`python -m asgi_ipc`: the command. Law: nothing of its own."""

from asgi_ipc.cli import main

main(prog_name="asgi-ipc")
