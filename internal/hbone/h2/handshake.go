package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// secure runs TLS over w and returns who the peer is.
func secure(ctx context.Context, w *wire, cfg *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (*tls.Conn, hbone.Peer, error) {
	cfg = cfg.Clone()
	cfg.DynamicRecordSizingDisabled = true // records are gathered by us
	c := side(w, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, hbone.Peer{}, fmt.Errorf("tls handshake: %w", err)
	}
	state := c.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return nil, hbone.Peer{}, errors.New("tls handshake: peer does not speak h2")
	}
	peer := hbone.Peer{
		Chain:  state.PeerCertificates,
		Remote: addrPort(w.RemoteAddr()),
		Local:  addrPort(w.LocalAddr()),
	}
	if len(peer.Chain) > 0 {
		peer.ID, _ = spiffe.FromCertificate(peer.Chain[0])
	}
	if peer.ID.IsZero() {
		return nil, peer, &hbone.PeerError{Err: errors.New("its certificate carries no identity")}
	}
	return c, peer, nil
}

// await waits for the peer's SETTINGS. With TLS 1.3 that is also when a client
// learns whether its certificate was accepted.
func (t *tunnel) await(ctx context.Context) error {
	select {
	case <-t.settled:
		return nil
	case <-t.ended_:
		t.mu.Lock()
		err := t.err
		t.mu.Unlock()
		if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
			return fmt.Errorf("peer did not accept our certificate: %w", alert)
		}
		return fmt.Errorf("waiting for settings: %w", err)
	case <-ctx.Done():
		t.Close()
		return fmt.Errorf("waiting for settings: %w", ctx.Err())
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func readFull(r io.Reader, p []byte) (int, error) { return io.ReadFull(r, p) }
