package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// link is one connected ztunnel. Its fields are guarded by Pods.mu.
type link struct {
	conn *zds.Conn
	// known are the pods it has been told of, with its answers.
	known        map[string]answer
	snapshotSent bool
}

// answer is what a ztunnel said to one Put; versions begin at 1.
type answer struct {
	version uint64
	err     error
}

// step is the next thing to say to a ztunnel.
type step struct {
	kind    zds.Kind
	pod     zds.Pod
	ns      *linux.NetNS // the step's own copy
	version uint64
	keep    []string // before SnapshotSent
}

// serve brings one ztunnel up to date and keeps it so until either side ends.
func (p *Pods) serve(ctx context.Context, conn *zds.Conn) error {
	version, err := conn.Hello(ctx)
	if err != nil {
		return err
	}
	p.log.Info("ztunnel connected", "version", version)
	l := &link{conn: conn, known: map[string]answer{}}
	p.join(l)
	defer p.leave(l)
	for {
		next, changed, err := p.next(l)
		if err != nil {
			return err
		}
		if next == nil {
			select {
			case <-changed:
				continue
			case <-conn.Done():
				return conn.Err()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := p.take(ctx, l, next); err != nil {
			return err
		}
	}
}

// join makes the link the newest; leave forgets it.
func (p *Pods) join(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = append(p.links, l)
	p.changedLocked()
}

func (p *Pods) leave(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.links {
		if p.links[i] == l {
			p.links = append(p.links[:i], p.links[i+1:]...)
			break
		}
	}
	p.changedLocked()
}

// next finds what the ztunnel lacks, nil if nothing.
func (p *Pods) next(l *link) (*step, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid := range l.known {
		if p.wished[uid] == nil {
			return &step{kind: zds.Del, pod: zds.Pod{UID: uid}}, p.changed, nil
		}
	}
	// While its snapshot is being sent, even a ztunnel that is no longer the
	// newest gets all: it may be taken for complete afterwards.
	if newest := p.links[len(p.links)-1] == l; newest || !l.snapshotSent {
		for uid, w := range p.wished {
			if l.known[uid].version == w.version {
				continue
			}
			ns, err := duplicate(w.ns)
			if err != nil {
				return nil, p.changed, err
			}
			return &step{kind: zds.Add, pod: w.pod, ns: ns, version: w.version}, p.changed, nil
		}
	}
	if l.snapshotSent {
		return nil, p.changed, nil
	}
	s := &step{kind: zds.SnapshotSent}
	for uid := range p.unknown {
		s.keep = append(s.keep, uid)
	}
	return s, p.changed, nil
}

// take says one thing and notes the answer. A refusal is an answer: ztunnel
// goes on trying by itself, and the connection lives.
func (p *Pods) take(ctx context.Context, l *link, s *step) error {
	var err error
	switch s.kind {
	case zds.Add:
		err = l.conn.Add(ctx, s.pod, s.ns.File())
		s.ns.Close()
	case zds.Del:
		err = l.conn.Del(ctx, s.pod.UID)
	case zds.SnapshotSent:
		for _, uid := range s.keep {
			if err = l.conn.Keep(ctx, uid); l.conn.Err() != nil {
				return err
			}
		}
		err = l.conn.SnapshotSent(ctx)
	}
	if ended := l.conn.Err(); ended != nil {
		return ended
	}
	if err != nil {
		p.log.Warn("ztunnel did not take a request", "request", s.kind.String(), "pod", s.pod.String(), "uid", s.pod.UID, "error", err)
	}
	p.note(l, s, err)
	return nil
}

func (p *Pods) note(l *link, s *step, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s.kind {
	case zds.Add:
		l.known[s.pod.UID] = answer{s.version, err}
	case zds.Del:
		delete(l.known, s.pod.UID)
	case zds.SnapshotSent:
		l.snapshotSent = true
		p.log.Info("ztunnel is up to date", "pods", len(l.known))
	}
	p.changedLocked()
}

// duplicate opens ns once more, so that each owner closes its own.
func duplicate(ns *linux.NetNS) (*linux.NetNS, error) {
	fd, err := unix.FcntlInt(ns.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicating a network namespace: %w", err)
	}
	return linux.NetNSFromFile(os.NewFile(uintptr(fd), "netns"))
}

// ended reports whether err is only the ordinary end of a connection.
func ended(err error) bool { return errors.Is(err, zds.ErrClosed) || errors.Is(err, context.Canceled) }
