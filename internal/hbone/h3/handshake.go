package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// secured makes a configuration of hbone.Credentials one of this transport: each
// peer is verified in full, so nothing is resumed and nothing said early.
func secured(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{http3.NextProtoH3}
	cfg.SessionTicketsDisabled = true
	return cfg
}

// peerOf is who the handshake of a connection has shown.
func peerOf(c *quic.Conn) (hbone.Peer, error) {
	state := c.ConnectionState().TLS
	peer := hbone.Peer{Chain: state.PeerCertificates, Remote: addrPort(c.RemoteAddr()), Local: addrPort(c.LocalAddr())}
	if state.NegotiatedProtocol != http3.NextProtoH3 {
		return peer, errors.New("quic handshake: peer does not speak h3")
	}
	if len(peer.Chain) > 0 {
		peer.ID, _ = spiffe.FromCertificate(peer.Chain[0])
	}
	if peer.ID.IsZero() {
		return peer, &hbone.PeerError{Err: errors.New("its certificate carries no identity")}
	}
	return peer, nil
}

// await waits for the peer's SETTINGS. That is also when a client learns whether
// its certificate was accepted.
func (t *tunnel) await(ctx context.Context) error {
	select {
	case <-t.settled:
		return nil
	case <-t.ended_:
		err := t.reason()
		if alert, ok := errors.AsType[*quic.TransportError](err); ok && alert.Remote && alert.ErrorCode.IsCryptoError() {
			return fmt.Errorf("peer did not accept our certificate: %w", alert)
		}
		return fmt.Errorf("waiting for settings: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("waiting for settings: %w", ctx.Err())
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
