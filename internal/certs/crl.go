package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// lookEvery is how often the file of revocations is looked at.
const lookEvery = time.Second

// guard refuses who has been revoked, and ends tunnels to those. Lists come from
// a file and from the control plane; what either names is revoked.
type guard struct {
	log *slog.Logger

	mu     sync.Mutex
	file   revocations
	pushed revocations
	all    revocations
	watch  map[*watched]struct{}
	prune  int // how many are watched before those that ended are let go of
	stats  guardStats
}

type guardStats struct {
	Refused map[string]uint64 // handshakes, by the reporter
	Ended   uint64            // tunnels
	Bad     uint64            // lists that could not be read
}

// watched is a tunnel whose peer was verified.
type watched struct {
	peer  hbone.Peer
	roots roots
	ended <-chan struct{}
	end   func(error)
}

func newGuard(log *slog.Logger) *guard {
	return &guard{log: log, watch: map[*watched]struct{}{}, stats: guardStats{Refused: map[string]uint64{}}}
}

// check refuses a verified chain of which a certificate has been revoked.
func (g *guard) check(peer hbone.Peer, r roots, reporter string) error {
	g.mu.Lock()
	all := g.all
	g.mu.Unlock()
	bad := all.revoked(peer.Chain, r)
	if bad == nil {
		return nil
	}
	g.mu.Lock()
	g.stats.Refused[reporter]++
	g.mu.Unlock()
	return revokedError(peer, bad.SerialNumber.Text(16))
}

func revokedError(peer hbone.Peer, serial string) error {
	return fmt.Errorf("%w: serial %s of %s", ErrRevoked, serial, peer.ID)
}

// add watches a tunnel, and ends it at once if its peer was revoked between its
// handshake and now.
func (g *guard) add(w *watched) {
	g.mu.Lock()
	g.watch[w] = struct{}{}
	if len(g.watch) > g.prune {
		for w := range g.watch {
			if w.over() {
				delete(g.watch, w)
			}
		}
		g.prune = 2*len(g.watch) + 16
	}
	all := g.all
	g.mu.Unlock()
	g.judge(all, w)
}

func (w *watched) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// judge ends a tunnel whose peer has been revoked.
func (g *guard) judge(all revocations, w *watched) {
	bad := all.revoked(w.peer.Chain, w.roots)
	if bad == nil || w.over() {
		return
	}
	g.mu.Lock()
	g.stats.Ended++
	g.mu.Unlock()
	err := revokedError(w.peer, bad.SerialNumber.Text(16))
	g.log.Info("tunnel ended", "peer", w.peer.ID.String(), "remote", w.peer.Remote.String(), "reason", err)
	w.end(err)
}

// set takes new lists into one of the two places and judges every tunnel.
func (g *guard) set(place *revocations, lists revocations) {
	g.mu.Lock()
	*place = lists
	g.all = slices.Concat(g.file, g.pushed)
	all := g.all
	live := make([]*watched, 0, len(g.watch))
	for w := range g.watch {
		live = append(live, w)
	}
	g.mu.Unlock()
	for _, w := range live {
		g.judge(all, w)
	}
}

func (g *guard) bad(err error) {
	g.mu.Lock()
	g.stats.Bad++
	g.mu.Unlock()
	g.log.Error("revoked certificates not read, those known before stay revoked", "err", err)
}

// follow reads a file whenever it changes, until ctx ends: also when it is
// replaced by way of a symbolic link, as mounted ConfigMaps are. A file that is
// missing or empty names nobody.
func (g *guard) follow(ctx context.Context, path string, changed func()) error {
	var last []byte
	var seen fs.FileInfo
	said := ""
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if info, _ := os.Stat(path); !sameFile(seen, info) {
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				text, err = nil, nil
			}
			switch {
			case err != nil && err.Error() != said:
				g.bad(err)
				said = err.Error()
			case err == nil && !bytes.Equal(text, last):
				if g.read(text) {
					changed()
				}
			}
			if err == nil {
				seen, last, said = info, text, ""
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sameFile reports whether nothing was written in between.
func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return false // look: reading what is not there costs nothing
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (g *guard) read(text []byte) bool {
	ders, err := ParseRevocations(text)
	if err != nil {
		g.bad(err)
		return false
	}
	lists, err := newRevocations(ders)
	if err != nil {
		g.bad(err)
		return false
	}
	g.set(&g.file, lists)
	g.log.Info("revoked certificates read from file", "lists", len(lists), "certificates", lists.count())
	return true
}

// names reports whether one of our own certificates has been revoked.
func (g *guard) names(c *Certificate) bool {
	g.mu.Lock()
	all := g.all
	g.mu.Unlock()
	return all.revoked(c.Chain, c.Roots) != nil
}

func (r revocations) count() (n int) {
	for _, l := range r {
		n += len(l.serials)
	}
	return n
}
