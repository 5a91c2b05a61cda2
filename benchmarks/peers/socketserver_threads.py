"""socketserver, a thread a client, after https://docs.python.org/3/library/socketserver.html."""

import socketserver

from benchmarks.peers.common import HOST, READ_BYTES, arguments, choose_transform

OPTIONS = arguments()
new_transform = choose_transform(text=OPTIONS.text)


class UpperHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        upper = new_transform()
        while data := self.request.recv(READ_BYTES):
            self.request.sendall(upper(data))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server((HOST, OPTIONS.port), UpperHandler) as server:
    server.serve_forever()
