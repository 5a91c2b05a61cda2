"""The dozen lines that everybody writes first: a Trio server that answers in upper case.

It works, and it is how to begin. Before it may be left running, each line needs more; what that is
stands beside it, with the file below ``src/trio_upper`` that has it.
"""

import trio


async def answer(stream: trio.SocketStream) -> None:
    """Answer one client until it closes."""
    # A client that sends nothing holds its task and its descriptor for ever, and one that reads
    # nothing holds its reply in memory: deadlines that cost a message nothing,
    # server/conversation.py.
    async for data in stream:
        # A character that the network cuts in two raises UnicodeDecodeError: protocol.py.
        reply = data.decode().upper().encode()
        # A client that resets raises BrokenResourceError. Whatever leaves this function ends the
        # whole server, with all of its clients: one `try` for each client, server/clients.py.
        await stream.send_all(reply)


async def main(port: int = 8746) -> None:
    """Serve until Ctrl-C."""
    # Out of descriptors it logs a traceback ten times a second: a limit, with a notice for the
    # client beyond it, server/server.py. SIGTERM cuts clients in the middle of a reply: a drain,
    # server/server.py and cli/signals.py. There is no log to see any of it by: cli/log.py.
    await trio.serve_tcp(answer, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
