/* C and epoll, after the example in epoll(7): one thread, level-triggered, a buffer for each client
   that has not taken all of its reply. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024, EVENTS = 64, BACKLOG = 4096 };

struct client {
    int fd;
    size_t start, end; /* what the client has still to take of `reply` */
    char reply[];
};

static int poller;
static char buffer[READ_BYTES];

static void watch(struct client *client, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, operation, client->fd, &event) < 0)
        err(1, "epoll_ctl");
}

static void upper(char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        bytes[i] -= bytes[i] >= 'a' && bytes[i] <= 'z' ? 'a' - 'A' : 0;
}

static void finish(struct client *client) {
    close(client->fd);
    free(client);
}

/* Sends what it can; what is left is kept in the client, which is then watched for room. */
static void reply(struct client *client, const char *bytes, size_t size) {
    ssize_t sent = send(client->fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        finish(client);
        return;
    }
    size_t taken = sent < 0 ? 0 : (size_t)sent;
    if (taken == size)
        return;
    client = realloc(client, sizeof *client + size - taken);
    if (client == NULL)
        err(1, "realloc");
    client->start = 0;
    client->end = size - taken;
    memcpy(client->reply, bytes + taken, client->end);
    watch(client, EPOLL_CTL_MOD, EPOLLOUT);
}

static void readable(struct client *client) {
    ssize_t got = recv(client->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        finish(client);
        return;
    }
    upper(buffer, (size_t)got);
    reply(client, buffer, (size_t)got);
}

static void writable(struct client *client) {
    size_t left = client->end - client->start;
    ssize_t sent = send(client->fd, client->reply + client->start, left, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return;
    if (sent < 0) {
        finish(client);
        return;
    }
    client->start += (size_t)sent;
    if (client->start == client->end)
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
}

static void admit(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return; /* the client has gone again, or no descriptor is left: epoll will say so anew */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        err(1, "calloc");
    client->fd = fd;
    watch(client, EPOLL_CTL_ADD, EPOLLIN);
}

static int listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        err(1, "port %d", port);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2)
        errx(2, "usage: epoll PORT");
    struct client listener = {.fd = listen_on(atoi(argv[1]))};
    struct epoll_event events[EVENTS];
    poller = epoll_create1(EPOLL_CLOEXEC);
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == &listener)
                admit(listener.fd);
            else if (events[i].events & EPOLLOUT)
                writable(client);
            else
                readable(client);
        }
    }
}
