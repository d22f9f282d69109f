package changes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// The shortest and the longest pause between two tellings of one namespace. It
// doubles while changes go on, so that a program that fights with us costs
// little; after calm it is the shortest again.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
	calm       = 10 * time.Second
)

// Watcher watches namespaces. Make it with New.
type Watcher struct {
	epoll *os.File // of the sockets of all namespaces

	mu    sync.Mutex
	keys  map[string]*watched
	byID  map[int32]*watched
	last  int32
	ended bool
}

// watched is one namespace, guarded by Watcher.mu.
type watched struct {
	key     string
	id      int32
	sockets []int
	told    time.Time
	pause   time.Duration
	due     time.Time // when it is listened to again; zero while it is
}

// New makes a watcher of nothing; Close it.
func New() (*Watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll: %w", err)
	}
	// Go waits for it as it waits for a socket: no thread is held.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("making an epoll: %w", err), unix.Close(fd))
	}
	return &Watcher{epoll: os.NewFile(uintptr(fd), "epoll"), keys: map[string]*watched{}, byID: map[int32]*watched{}}, nil
}

// Add begins to watch ns under a key, in place of what was watched under it.
// ns need not stay open.
func (w *Watcher) Add(key string, ns *linux.NetNS) error {
	sockets, err := open(ns)
	if err != nil {
		return fmt.Errorf("asking the kernel for notifications: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(key)
	if w.ended {
		return errors.Join(os.ErrClosed, closeAll(sockets))
	}
	w.last++
	added := &watched{key: key, id: w.last, sockets: sockets}
	for _, fd := range sockets {
		if err := w.control(unix.EPOLL_CTL_ADD, added, fd); err != nil {
			return errors.Join(fmt.Errorf("waiting for notifications: %w", err), closeAll(sockets))
		}
	}
	w.keys[key], w.byID[added.id] = added, added
	return nil
}

// Remove stops watching; what is not watched is no error.
func (w *Watcher) Remove(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(key)
}

func (w *Watcher) removeLocked(key string) {
	if old := w.keys[key]; old != nil {
		delete(w.keys, key)
		delete(w.byID, old.id)
		closeAll(old.sockets) // which takes them out of the epoll
	}
}

// Len is how many namespaces are watched.
func (w *Watcher) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.keys)
}

// Close stops watching everything and ends Run. It may be called twice.
func (w *Watcher) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.keys {
		w.removeLocked(key)
	}
	if w.ended {
		return nil
	}
	w.ended = true
	return w.epoll.Close()
}

func (w *Watcher) closed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// Run calls changed with the key of every namespace in which something has
// changed, one call at a time, until ctx ends.
func (w *Watcher) Run(ctx context.Context, changed func(key string)) error {
	stop := context.AfterFunc(ctx, func() { w.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		ids, err := w.wait(ctx)
		switch {
		case ctx.Err() != nil || w.closed():
			return nil
		case err != nil:
			return fmt.Errorf("waiting for notifications: %w", err)
		}
		for _, id := range ids {
			if key, ok := w.take(id); ok {
				changed(key)
			}
		}
	}
	return nil
}

// wait waits until sockets have something to say, or one is to be listened to
// again, which it then is.
func (w *Watcher) wait(ctx context.Context) (ids []int32, err error) {
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := w.epoll.SetReadDeadline(w.listen(time.Now())); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, nil // the deadline of its end may just have been overwritten
	}
	var events [64]unix.EpollEvent
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, failed = unix.EpollWait(int(fd), events[:], 0)
		return n > 0 || failed != nil && !errors.Is(failed, unix.EINTR)
	})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	}
	for _, e := range events[:max(n, 0)] {
		ids = append(ids, e.Fd)
	}
	return ids, failed
}

// listen listens again to what is due, and says when the next will be; the zero
// time is never.
func (w *Watcher) listen(now time.Time) (next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.byID {
		switch {
		case p.due.IsZero():
		case p.due.After(now):
			if next.IsZero() || p.due.Before(next) {
				next = p.due
			}
		default:
			p.due = time.Time{}
			for _, fd := range p.sockets {
				w.control(unix.EPOLL_CTL_MOD, p, fd)
			}
		}
	}
	return next
}

// take empties the sockets of a namespace that has something to say, and pauses
// until it is listened to again. Emptied first and compared afterwards, no
// change is missed.
func (w *Watcher) take(id int32) (key string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.byID[id]
	if p == nil {
		return "", false
	}
	for _, fd := range p.sockets {
		drain(fd)
	}
	now := time.Now()
	if now.Sub(p.told) > calm {
		p.pause = 0
	}
	p.told, p.pause = now, min(max(2*p.pause, firstPause), maxPause)
	p.due = now.Add(p.pause)
	return p.key, true
}

func (w *Watcher) control(op int, p *watched, fd int) error {
	var err error
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	other := raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: p.id})
	})
	return errors.Join(err, other)
}
