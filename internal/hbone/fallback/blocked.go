package fallback

import (
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Silent tells that a tunnel over HTTP/3 was made to t, and that nothing comes
// through it any more: new tunnels to its address are made over HTTP/2.
func (d *Dialer) Silent(t hbone.Target, why error) { d.block(t, why) }

// Blocked is how many addresses are taken for blocked.
func (d *Dialer) Blocked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.blocked)
}

// Close ends the probes and waits for them. No Dial may follow.
func (d *Dialer) Close() {
	d.cancel()
	d.probing.Wait()
}

// isBlocked says whether t is to be dialled over HTTP/2 alone. If that has been
// so for long, HTTP/3 is tried beside: nobody waits for it.
func (d *Dialer) isBlocked(t hbone.Target) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.blocked[t.Address.Addr()]
	if b == nil {
		return false
	}
	if !b.probing && !time.Now().Before(b.until) && d.ctx.Err() == nil {
		b.probing = true
		d.probing.Go(func() { d.probe(t, b) })
	}
	return true
}

// probe forgets the block if HTTP/3 gets through again.
func (d *Dialer) probe(t hbone.Target, b *block) {
	tunnel, err := d.cfg.H3.Dial(d.ctx, t)
	lose(tunnel)
	d.mu.Lock()
	defer d.mu.Unlock()
	b.probing = false
	if err != nil && !refused(err) { // who is refused has been reached
		b.until = time.Now().Add(d.cfg.Retry)
		return
	}
	if d.blocked[t.Address.Addr()] == b {
		delete(d.blocked, t.Address.Addr())
	}
	d.cfg.Logger.Info("HTTP/3 gets through again", "address", t.Address.Addr())
}

func (d *Dialer) block(t hbone.Target, why error) {
	at, now := t.Address.Addr(), time.Now()
	d.mu.Lock()
	b := d.blocked[at]
	if b == nil {
		d.makeRoomLocked()
		b = &block{since: now}
		d.blocked[at] = b
	}
	b.until = now.Add(d.cfg.Retry)
	d.mu.Unlock()
	d.cfg.Logger.Info("HTTP/3 does not get through, falling back to HTTP/2", "address", at, "retry_in", d.cfg.Retry, "err", why)
	if d.cfg.Fallen != nil {
		d.cfg.Fallen(at, why)
	}
}

// makeRoomLocked forgets what is known longest if there is too much of it.
func (d *Dialer) makeRoomLocked() {
	if len(d.blocked) < d.cfg.MaxBlocked {
		return
	}
	var eldest netip.Addr
	var since time.Time
	for at, b := range d.blocked {
		if since.IsZero() || b.since.Before(since) {
			eldest, since = at, b.since
		}
	}
	delete(d.blocked, eldest)
}
