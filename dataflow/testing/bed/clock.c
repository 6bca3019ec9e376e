/* A wrong clock: whoever preloads this sees the time of day OFFSET seconds away.
 *
 * OFFSET is the text of /etc/clock-offset when the program starts. Only the time of day is wrong:
 * monotonic clocks, sleeps and time limits are right, and so are the times that the kernel writes
 * on files. Debian's libfaketime is not used because Python 3.11's sleep fails under it, or its
 * locks wait for ever, and because it makes sshd break its own sandbox. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <semaphore.h>
#include <pthread.h>

#define SECOND 1000000000LL

static long long offset; /* nanoseconds, once it is known */
static volatile int known;

/* At the first question, not in a constructor, which small compilers do not have. */
static long long wrong_by(void)
{
    if (!known) {
        char text[64];
        int file = open("/etc/clock-offset", O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t size = read(file, text, sizeof text - 1);
            text[size > 0 ? size : 0] = 0;
            offset = (long long)(strtod(text, NULL) * 1e9);
            close(file);
        }
        known = 1;
    }
    return offset;
}

static void move(struct timespec *when, long long by)
{
    long long total = when->tv_sec * SECOND + when->tv_nsec + by;
    when->tv_sec = total / SECOND;
    when->tv_nsec = total % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        move(now, wrong_by());
    return (int)status;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (result)
        *result = exact.tv_sec;
    return exact.tv_sec;
}

/* Waits until a time of day: told in wrong time, so brought back to the kernel's. */

int sem_timedwait(sem_t *semaphore, const struct timespec *until)
{
    struct timespec real = *until;
    move(&real, -wrong_by());
    return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until)
{
    struct timespec real = *until;
    move(&real, -wrong_by());
    return pthread_mutex_clocklock(mutex, CLOCK_REALTIME, &real);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                           const struct timespec *until)
{
    struct timespec real = *until;
    /* A condition may be of the monotonic clock, and does not say so; no machine is up since 2001. */
    if (until->tv_sec < 1000000000)
        return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &real);
    move(&real, -wrong_by());
    return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &real);
}
