package h2

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// unreadDefault is what all the streams of a process may hold unread.
const unreadDefault = 256 << 20

// Unread bounds what the streams of all tunnels that share it hold for
// applications that do not read. Each stream alone is bounded by its window, but
// a peer may have many streams and tunnels. When all of it is used up, the peer
// that holds the most loses the tunnel that holds the most: whoever hoards is
// cut, and nobody else.
type Unread struct {
	limit int64
	held  atomic.Int64

	mu      sync.Mutex
	tunnels map[*tunnel]struct{} // whose readers run
	cutting *tunnel              // its buffers are on their way back
}

// NewUnread makes a bound of so many bytes. Zero: 256 MiB.
func NewUnread(limit int64) *Unread {
	if limit == 0 {
		limit = unreadDefault
	}
	return &Unread{limit: limit, tunnels: map[*tunnel]struct{}{}}
}

// Held is how much is held now.
func (u *Unread) Held() int64 { return u.held.Load() }

func (u *Unread) add(t *tunnel) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tunnels[t] = struct{}{}
}

func (u *Unread) remove(t *tunnel) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.tunnels, t)
	if u.cutting == t {
		u.cutting = nil
	}
}

// makeRoom cuts the worst tunnel, one at a time. It gives the reason if that is
// t, whose reader calls.
func (u *Unread) makeRoom(t *tunnel) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cutting != nil && u.cutting.unread.Load() > 0 {
		return nil
	}
	worst := u.worstLocked()
	u.cutting = worst
	err := abuseError(AbuseHoard, fmt.Sprintf("they hold %d bytes", worst.unread.Load()))
	if worst == t {
		return err
	}
	worst.work.Go(func() { worst.fail(err) }) // its reader has not ended: see remove
	return nil
}

func (u *Unread) worstLocked() (worst *tunnel) {
	peers := map[spiffe.ID]int64{}
	for t := range u.tunnels {
		peers[t.peer.ID] += t.unread.Load()
	}
	for t := range u.tunnels {
		if worst == nil || peers[t.peer.ID] > peers[worst.peer.ID] ||
			peers[t.peer.ID] == peers[worst.peer.ID] && t.unread.Load() > worst.unread.Load() {
			worst = t
		}
	}
	return worst
}

// makeRoom is called before more is read, with no lock held. An error ends the
// tunnel itself.
func (t *tunnel) makeRoom() error {
	if u := t.tuning.Unread; u.held.Load() >= u.limit {
		return u.makeRoom(t)
	}
	return nil
}

// hold notes n bytes of buffers that wait for an application, or, negative, do
// not any longer.
func (t *tunnel) hold(n int) {
	t.unread.Add(int64(n))
	t.tuning.Unread.held.Add(int64(n))
}
