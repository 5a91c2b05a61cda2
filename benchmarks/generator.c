/* The load generator: many connections, a fixed number of messages in flight on each, and every byte
   of every reply compared. The contract is told in load.py; generator.py does the same in Python. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 * 1024, /* large, so that reading costs us less than it costs the server to write */
    EVENTS = 512,
    QUOTED = 80, /* bytes of a wrong reply */
    FINE_BITS = 6, /* as in figures.py */
    FINE = 1 << FINE_BITS,
    BUCKETS = (64 - FINE_BITS + 1) * FINE,
};

struct ring { /* messages of one size, repeated for ever */
    char *bytes;
    uint64_t size, message;
};

struct connection {
    int fd;
    bool watched;            /* the poller reports what comes */
    bool blocked;            /* the kernel takes no more of our messages for now */
    uint64_t sent, received; /* bytes, counted from the start of the rings */
    uint64_t *sent_at;       /* for each message in flight, when its last byte went out; ns */
    uint64_t spoke, pause;   /* when we sent something, and how long after the time before; ns */
};

static struct ring requests, replies;
static struct connection *connections;
static int count, poller;
static uint64_t in_flight, begun, answered; /* messages */
static bool sending;
static uint64_t latency[BUCKETS];
static char buffer[READ_BYTES];

static uint64_t now_on(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *allocate(size_t number, size_t size) {
    void *memory = calloc(number, size);
    if (memory == NULL)
        err(1, "calloc");
    return memory;
}

static struct ring load(const char *path, uint64_t messages) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        err(1, "the messages");
    struct ring ring = {.size = (uint64_t)status.st_size, .message = (uint64_t)status.st_size / messages};
    ring.bytes = allocate(1, ring.size);
    for (uint64_t got = 0; got < ring.size;) {
        ssize_t more = read(fd, ring.bytes + got, ring.size - got);
        if (more <= 0)
            err(1, "the messages");
        got += (uint64_t)more;
    }
    close(fd);
    return ring;
}

static void record(uint64_t nanoseconds) {
    int shift = nanoseconds < FINE ? 0 : 63 - __builtin_clzll(nanoseconds) - FINE_BITS;
    latency[nanoseconds < FINE ? nanoseconds
                               : (uint64_t)(shift + 1) * FINE + ((nanoseconds >> shift) & (FINE - 1))]++;
}

/* Compares what came with what is owed next, which may lie across the end of the ring. */
static void verify(struct connection *connection, uint64_t size) {
    for (uint64_t done = 0; done < size;) {
        uint64_t at = connection->received % replies.size;
        uint64_t part = size - done < replies.size - at ? size - done : replies.size - at;
        if (memcmp(buffer + done, replies.bytes + at, part) != 0) {
            uint64_t since = now_on(CLOCK_MONOTONIC) - connection->spoke;
            uint64_t quiet = since > connection->pause ? since : connection->pause;
            errx(1, "a wrong reply, to a client that was quiet for %.3f s: %.*s", (double)quiet / 1e9,
                 (int)(part < QUOTED ? part : QUOTED), buffer + done);
        }
        done += part;
        connection->received += part;
    }
}

static void receive(struct connection *connection) {
    ssize_t got = recv(connection->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got < 0)
        err(1, "receiving");
    if (got == 0)
        errx(1, "the server closed a connection");
    uint64_t first = connection->received / replies.message, now = now_on(CLOCK_MONOTONIC);
    verify(connection, (uint64_t)got);
    uint64_t whole = connection->received / replies.message;
    for (uint64_t message = first; message < whole; message++)
        record(now - connection->sent_at[message % in_flight]);
    answered += whole - first;
    if (answered > begun)
        errx(1, "a wrong reply: more than was owed");
}

static void watch(struct connection *connection, int operation, bool blocked) {
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0)
        err(1, "epoll_ctl");
    connection->watched = operation != EPOLL_CTL_DEL;
    connection->blocked = blocked;
}

static uint64_t whole_messages(uint64_t bytes) {
    return (bytes + requests.message - 1) / requests.message;
}

/* Sends until `messages` messages since the start of the ring have gone out whole. */
static void send_up_to(struct connection *connection, uint64_t messages) {
    uint64_t until = messages * requests.message;
    bool blocked = false;
    while (connection->sent < until && !blocked) {
        uint64_t at = connection->sent % requests.size, left = until - connection->sent;
        uint64_t now = now_on(CLOCK_MONOTONIC), before = connection->sent;
        size_t size = left < requests.size - at ? left : requests.size - at;
        ssize_t sent = send(connection->fd, requests.bytes + at, size, MSG_NOSIGNAL);
        blocked = sent < 0 && errno == EAGAIN;
        if (sent < 0 && !blocked)
            err(1, "sending");
        connection->sent += blocked ? 0 : (uint64_t)sent;
        begun += whole_messages(connection->sent) - whole_messages(before);
        connection->pause = now - connection->spoke;
        connection->spoke = now;
        for (uint64_t m = before / requests.message; m < connection->sent / requests.message; m++)
            connection->sent_at[m % in_flight] = now;
    }
    if (blocked != connection->blocked)
        watch(connection, EPOLL_CTL_MOD, blocked);
}

/* While sending, keeps the messages in flight; afterwards only ends the one that has begun, and looks
   no more at a connection on which nothing is owed: a server that stops may end it. */
static void refill(struct connection *connection) {
    uint64_t owed_from = connection->received / replies.message;
    send_up_to(connection, sending ? owed_from + in_flight : whole_messages(connection->sent));
    if (!sending && owed_from == whole_messages(connection->sent))
        watch(connection, EPOLL_CTL_DEL, false);
}

static void turn(void) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            receive(connection);
        refill(connection);
    }
}

/* Sends for `seconds`, then waits until nothing is owed. */
static void run(double seconds) {
    uint64_t end = now_on(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
    sending = seconds > 0;
    for (int i = 0; i < count; i++) {
        if (!connections[i].watched)
            watch(&connections[i], EPOLL_CTL_ADD, false);
        refill(&connections[i]);
    }
    while (answered < begun) {
        turn();
        sending = sending && now_on(CLOCK_MONOTONIC) < end;
    }
}

/* One message there and back before the next one connects: the server has then accepted this one,
   and no queue of new connections overflows. */
static void open_connection(struct connection *connection, int port, uint64_t first) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        err(1, "connecting");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    connection->sent_at = allocate(in_flight, sizeof *connection->sent_at);
    connection->sent = first * requests.message;
    connection->received = first * replies.message;
    connection->spoke = now_on(CLOCK_MONOTONIC);
    watch(connection, EPOLL_CTL_ADD, false);
    send_up_to(connection, first + 1);
    while (answered < begun)
        turn();
}

static void print_result(double seconds, double cpu, uint64_t messages) {
    const char *comma = "";
    printf("{\"messages\": %ju, \"seconds\": %.6f, \"cpu\": %.6f, \"latency\": [", (uintmax_t)messages,
           seconds, cpu);
    for (int i = 0; i < BUCKETS; i++) {
        if (latency[i] == 0)
            continue;
        printf("%s[%d, %ju]", comma, i, (uintmax_t)latency[i]);
        comma = ", ";
    }
    printf("]}\n");
}

/* Waits for a line; false at the end of the input. */
static bool told(void) {
    char line[16];
    return fgets(line, sizeof line, stdin) != NULL;
}

int main(int argc, char **argv) {
    if (argc != 10)
        errx(2, "usage: see load.py");
    int port = atoi(argv[1]);
    count = atoi(argv[2]);
    in_flight = strtoull(argv[3], NULL, 10);
    double warm_up = atof(argv[4]), seconds = atof(argv[5]);
    alarm((unsigned)atoi(argv[6]));
    uint64_t messages = strtoull(argv[7], NULL, 10);
    requests = load(argv[8], messages);
    replies = load(argv[9], messages);
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = allocate((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++)
        open_connection(&connections[i], port, (uint64_t)i % messages);
    run(warm_up);
    memset(latency, 0, sizeof latency);
    puts("ready");
    fflush(stdout);
    if (!told())
        return 1;
    uint64_t start = now_on(CLOCK_MONOTONIC), cpu = now_on(CLOCK_PROCESS_CPUTIME_ID), old = answered;
    run(seconds);
    print_result((double)(now_on(CLOCK_MONOTONIC) - start) / 1e9,
                 (double)(now_on(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9, answered - old);
    fflush(stdout);
    told();
    return 0;
}
