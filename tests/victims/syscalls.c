/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that blocks in every kind of system call that can: one thread for each kind, which
 * begins anew when the call returns. A line on its input is answered by "KINDS EINTR OTHER NAMES":
 * how many kinds there are, how many calls came back with EINTR and how many for another reason,
 * and whose they were. Started by tests of the os layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOUR 3600

static const struct timespec hour = {HOUR, 0};
static sigset_t waited;
static pid_t child;

static struct timespec hour_from_now(int clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += HOUR;
    return t;
}

/* An end of a pipe from which nothing comes. */
static int quiet_pipe(void)
{
    int pair[2];
    return pipe(pair) == 0 ? pair[0] : -1;
}

/* A pipe that takes no more. */
static int full_pipe(void)
{
    int pair[2];
    char block[4096] = "";
    if (pipe2(pair, O_NONBLOCK) != 0)
        return -1;
    while (write(pair[1], block, sizeof block) > 0)
        ;
    fcntl(pair[1], F_SETFL, 0);
    return pair[1];
}

static int quiet_socket(int limit)
{
    int pair[2];
    struct timeval time = {HOUR, 0};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    if (limit)
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    return pair[0];
}

static int full_socket(void)
{
    int pair[2];
    char block[4096] = "";
    struct timeval time = {HOUR, 0};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    while (send(pair[0], block, sizeof block, MSG_DONTWAIT) > 0)
        ;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
    return pair[0];
}

static int listener(int limit)
{
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    struct timeval time = {HOUR, 0};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(fd, (struct sockaddr *)&any, sizeof any.sun_family);
    listen(fd, 1);
    if (limit)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    return fd;
}

static int quiet_epoll(void)
{
    int fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(fd, EPOLL_CTL_ADD, quiet_pipe(), &event);
    return fd;
}

/* What would outlive us: the child removes it when we are gone, however we went. */
static struct shared {
    _Atomic int semaphores, queues;
    int semaphore[4], queue[4];
    char fifo[64];
} * shared;

static int new_semaphore(void)
{
    int id = semget(IPC_PRIVATE, 1, 0600);
    shared->semaphore[shared->semaphores++] = id;
    return id;
}

static int new_messages(void)
{
    int id = msgget(IPC_PRIVATE, 0600);
    shared->queue[shared->queues++] = id;
    return id;
}

static _Noreturn void clean_up_after(int parent)
{
    char byte;
    while (read(parent, &byte, 1) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < shared->semaphores; i++)
        semctl(shared->semaphore[i], 0, IPC_RMID);
    for (int i = 0; i < shared->queues; i++)
        msgctl(shared->queue[i], IPC_RMID, NULL);
    unlink(shared->fifo);
    _exit(0);
}

#define ONCE(type_, expr_) \
    static type_ thing;    \
    static int made;       \
    if (!made) {           \
        thing = (expr_);   \
        made = 1;          \
    }

static long k_pause(void)
{
    return pause();
}
static long k_nanosleep(void)
{
    return syscall(SYS_nanosleep, &hour, NULL);
}
static long k_clock_nanosleep(void)
{
    struct timespec until = hour_from_now(CLOCK_MONOTONIC);
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
static long k_poll(void)
{
    ONCE(int, quiet_pipe())
    struct pollfd p = {thing, POLLIN, 0};
    return poll(&p, 1, -1);
}
static long k_poll_limit(void)
{
    return poll(NULL, 0, HOUR * 1000);
}
static long k_ppoll(void)
{
    ONCE(int, quiet_pipe())
    struct pollfd p = {thing, POLLIN, 0};
    return ppoll(&p, 1, &hour, &waited);
}
static long k_select(void)
{
    struct timeval time = {HOUR, 0};
    return select(0, NULL, NULL, NULL, &time);
}
static long k_pselect(void)
{
    return pselect(0, NULL, NULL, NULL, &hour, &waited);
}
static long k_epoll_wait(void)
{
    ONCE(int, quiet_epoll())
    struct epoll_event event;
    return epoll_wait(thing, &event, 1, -1);
}
static long k_epoll_wait_limit(void)
{
    ONCE(int, quiet_epoll())
    struct epoll_event event;
    return epoll_wait(thing, &event, 1, HOUR * 1000);
}
static long k_epoll_pwait(void)
{
    ONCE(int, quiet_epoll())
    struct epoll_event event;
    return epoll_pwait(thing, &event, 1, -1, &waited);
}
static long k_epoll_pwait2(void)
{
    ONCE(int, quiet_epoll())
    struct epoll_event event;
    return syscall(441, thing, &event, 1, &hour, NULL, 0);
}
static char sink[256];
static long k_read_pipe(void)
{
    ONCE(int, quiet_pipe()) return read(thing, sink, 1);
}
static long k_read_eventfd(void)
{
    ONCE(int, eventfd(0, 0)) return read(thing, sink, 8);
}
static long k_read_timerfd(void)
{
    ONCE(int, timerfd_create(CLOCK_MONOTONIC, 0))
    return read(thing, sink, 8);
}
static long k_read_signalfd(void)
{
    ONCE(int, signalfd(-1, &waited, 0))
    return read(thing, sink, sizeof sink);
}
static long k_read_inotify(void)
{
    ONCE(int, inotify_init()) return read(thing, sink, sizeof sink);
}
static long k_read_socket(void)
{
    ONCE(int, quiet_socket(0)) return read(thing, sink, 1);
}
static long k_read_socket_limit(void)
{
    ONCE(int, quiet_socket(1)) return read(thing, sink, 1);
}
static long k_recv(void)
{
    ONCE(int, quiet_socket(0)) return recv(thing, sink, 1, 0);
}
static long k_recv_limit(void)
{
    ONCE(int, quiet_socket(1)) return recv(thing, sink, 1, 0);
}
static long k_recvmsg_limit(void)
{
    ONCE(int, quiet_socket(1))
    struct iovec part = {sink, 1};
    struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
    return recvmsg(thing, &head, 0);
}
static long k_recvmmsg_limit(void)
{
    ONCE(int, quiet_socket(1))
    struct iovec part = {sink, 1};
    struct mmsghdr head = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    return recvmmsg(thing, &head, 1, 0, NULL);
}
static long k_accept(void)
{
    ONCE(int, listener(0)) return accept(thing, NULL, NULL);
}
static long k_accept_limit(void)
{
    ONCE(int, listener(1)) return accept(thing, NULL, NULL);
}
static long k_send_limit(void)
{
    ONCE(int, full_socket()) return send(thing, sink, 1, 0);
}
static long k_write_socket_limit(void)
{
    ONCE(int, full_socket()) return write(thing, sink, 1);
}
static long k_write_pipe(void)
{
    ONCE(int, full_pipe()) return write(thing, sink, 64);
}
static long k_futex(void)
{
    static int word;
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
}
static long k_futex_limit(void)
{
    static int word;
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &hour, NULL, 0);
}
static long k_futex_bitset(void)
{
    static int word;
    struct timespec until = hour_from_now(CLOCK_MONOTONIC);
    return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &until, NULL, ~0);
}
static long k_futex_pi(void)
{
    static uint32_t word;
    word = (uint32_t)getpid() | FUTEX_WAITERS;
    return syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
}
static long k_futex_waitv(void)
{
    static uint32_t word;
    struct {
        uint64_t value, address;
        uint32_t flags, reserved;
    } waiter = {0, (uint64_t)(uintptr_t)&word, 2, 0};
    struct timespec until = hour_from_now(CLOCK_MONOTONIC);
    return syscall(449, &waiter, 1, 0, &until, CLOCK_MONOTONIC);
}
static long k_semop(void)
{
    ONCE(int, new_semaphore())
    struct sembuf take = {0, -1, 0};
    return semop(thing, &take, 1);
}
static long k_semtimedop(void)
{
    ONCE(int, new_semaphore())
    struct sembuf take = {0, -1, 0};
    return semtimedop(thing, &take, 1, &hour);
}
static long k_msgrcv(void)
{
    ONCE(int, new_messages())
    return msgrcv(thing, sink, 8, 0, 0);
}
static long k_msgsnd(void)
{
    ONCE(int, new_messages())
    static struct {
        long type;
        char text[4096];
    } message = {1, ""};
    while (msgsnd(thing, &message, sizeof message.text, IPC_NOWAIT) == 0)
        ;
    return msgsnd(thing, &message, sizeof message.text, 0);
}
static long k_sigwaitinfo(void)
{
    return sigwaitinfo(&waited, NULL);
}
static long k_sigtimedwait(void)
{
    return sigtimedwait(&waited, NULL, &hour);
}
static long k_sigsuspend(void)
{
    return sigsuspend(&waited);
}
static long k_flock(void)
{
    static int fd;
    if (!fd) {
        char path[] = "/tmp/victim-XXXXXX";
        int holder = mkstemp(path);
        fd = open(path, O_RDWR);
        unlink(path);
        flock(holder, LOCK_EX);
    }
    return flock(fd, LOCK_EX);
}
static long k_ofd_lock(void)
{
    static int fd;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!fd) {
        char path[] = "/tmp/victim-XXXXXX";
        int holder = mkstemp(path);
        fd = open(path, O_RDWR);
        unlink(path);
        fcntl(holder, F_OFD_SETLK, &lock);
    }
    return fcntl(fd, F_OFD_SETLKW, &lock);
}
static long k_wait4(void)
{
    return waitpid(child, NULL, 0);
}
static long k_waitid(void)
{
    siginfo_t info;
    return waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
}
static mqd_t new_queue(void)
{
    char name[32];
    static atomic_int number;
    snprintf(name, sizeof name, "/victim-%d-%d", getpid(), number++);
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT, 0600, &attributes);
    mq_unlink(name);
    return queue;
}
static long k_mq_receive(void)
{
    ONCE(mqd_t, new_queue()) return mq_receive(thing, sink, 8, NULL);
}
static long k_mq_timedreceive(void)
{
    ONCE(mqd_t, new_queue())
    struct timespec until = hour_from_now(CLOCK_REALTIME);
    return mq_timedreceive(thing, sink, 8, NULL, &until);
}
static long k_io_getevents(void)
{
    static aio_context_t context;
    struct io_event event;
    if (!context && syscall(SYS_io_setup, 1, &context) != 0)
        return -1;
    return syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
}
static long k_io_uring(void)
{
    static struct io_uring_params parameters;
    ONCE(int, (int)syscall(425, 4, &parameters))
    return syscall(426, thing, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
}
static long k_splice(void)
{
    static int from, to[2];
    if (!from) {
        from = quiet_pipe();
        if (pipe(to) != 0)
            return -1;
    }
    return splice(from, NULL, to[1], NULL, 64, 0);
}
static long k_open_fifo(void)
{
    if (mkfifo(shared->fifo, 0600) != 0 && errno != EEXIST)
        return -1;
    return open(shared->fifo, O_RDONLY);
}

#define KIND(name_)                \
    {                              \
#name_, k_##name_, 0, 0, 0 \
    }
static struct kind {
    const char *name;
    long (*call)(void);
    _Atomic unsigned long interrupted, other;
    _Atomic int absent;
} kinds[] = {
    KIND(pause),
    KIND(nanosleep),
    KIND(clock_nanosleep),
    KIND(poll),
    KIND(poll_limit),
    KIND(ppoll),
    KIND(select),
    KIND(pselect),
    KIND(epoll_wait),
    KIND(epoll_wait_limit),
    KIND(epoll_pwait),
    KIND(epoll_pwait2),
    KIND(read_pipe),
    KIND(read_eventfd),
    KIND(read_timerfd),
    KIND(read_signalfd),
    KIND(read_inotify),
    KIND(read_socket),
    KIND(read_socket_limit),
    KIND(recv),
    KIND(recv_limit),
    KIND(recvmsg_limit),
    KIND(recvmmsg_limit),
    KIND(accept),
    KIND(accept_limit),
    KIND(send_limit),
    KIND(write_socket_limit),
    KIND(write_pipe),
    KIND(futex),
    KIND(futex_limit),
    KIND(futex_bitset),
    KIND(futex_pi),
    KIND(futex_waitv),
    KIND(semop),
    KIND(semtimedop),
    KIND(msgrcv),
    KIND(msgsnd),
    KIND(sigwaitinfo),
    KIND(sigtimedwait),
    KIND(sigsuspend),
    KIND(flock),
    KIND(ofd_lock),
    KIND(wait4),
    KIND(waitid),
    KIND(mq_receive),
    KIND(mq_timedreceive),
    KIND(io_getevents),
    KIND(io_uring),
    KIND(splice),
    KIND(open_fifo),
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static void *blocker(void *argument)
{
    struct kind *kind = argument;
    pthread_setname_np(pthread_self(), kind->name);
    for (;;) {
        errno = 0;
        if (kind->call() < 0 && errno == EINTR) {
            kind->interrupted++;
        } else if (errno) {
            fprintf(stderr, "victim: no %s here: %s\n", kind->name, strerror(errno));
            kind->absent = 1;
            return NULL;
        } else {
            kind->other++;
        }
    }
}

static void report(void)
{
    unsigned long present = 0, interrupted = 0, other = 0;
    char names[2048] = "";
    for (size_t i = 0; i < KINDS; i++) {
        present += !kinds[i].absent;
        interrupted += kinds[i].interrupted;
        other += kinds[i].other;
        if (kinds[i].interrupted || kinds[i].other) {
            strcat(names, " ");
            strcat(names, kinds[i].name);
        }
        kinds[i].interrupted = kinds[i].other = 0;
    }
    printf("%lu %lu %lu%s\n", present, interrupted, other, names);
    fflush(stdout);
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&waited);
    sigaddset(&waited, SIGUSR2);
    sigprocmask(SIG_BLOCK, &waited, NULL);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(shared->fifo, sizeof shared->fifo, "/tmp/victim-fifo-%d", getpid());
    int pair[2];
    if (pipe(pair) != 0)
        return 1;
    child = fork();
    if (child == 0) {
        close(pair[1]);
        clean_up_after(pair[0]);
    }
    for (size_t i = 0; i < KINDS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, blocker, &kinds[i]);
    }
    usleep(100000);
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin))
        report();
    return 0;
}
