package datagrams

import (
	"context"
	"errors"
	"net"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Direct carries flows as they are, from the address that they have: to hosts
// outside of the mesh, and to the pod's own program. The port is another, for the
// program has that of what it sends.
type Direct struct {
	// NS is the pod's namespace; nil is the process's own.
	NS *linux.NetNS
	// Mark is on every packet.
	Mark int
}

// Open implements Carrier.
func (d Direct) Open(ctx context.Context, f Flow) (Conn, error) {
	s, err := linux.DialDatagrams(ctx, d.NS, f.Destination, linux.DialOptions{Mark: d.Mark, Source: f.Source.Addr()})
	if err != nil {
		return nil, err
	}
	return direct{s}, nil
}

type direct struct{ *linux.DatagramSocket }

// Receive implements Conn. That an earlier datagram reached nobody, or whatever
// else the network says of it, is once told as an error: the next may reach
// somebody.
func (d direct) Receive(take func(payload []byte)) error {
	err := d.DatagramSocket.Receive(func(g linux.Datagram) { take(g.Payload) })
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
