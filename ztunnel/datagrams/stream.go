package datagrams

import (
	"context"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Tunnelled carries a flow on a CONNECT-UDP.
type Tunnelled struct{ hbone.Stream }

// Send implements Conn.
func (t Tunnelled) Send(payload []byte) error {
	return t.SendDatagram(context.Background(), payload)
}

// Receive implements Conn.
func (t Tunnelled) Receive(take func(payload []byte)) error {
	payload, err := t.ReceiveDatagram(context.Background())
	if err == nil {
		take(payload)
	}
	return err
}

// Unreceived is how many datagrams of a flow a tunnel brought and had to drop, as
// they were not taken in time.
func Unreceived(c Conn) uint64 {
	t, ok := c.(Tunnelled)
	if !ok {
		return 0
	}
	if d, ok := t.Stream.(hbone.DropCounter); ok {
		return d.Dropped()
	}
	return 0
}

// UnreceivedReason is the word of metrics for those.
const UnreceivedReason = "unreceived"

// lingering is how long the other end has to end its half, after which the stream
// is reset.
const lingering = time.Second

// Close implements Conn. Receive ends when the other end has closed too, or soon
// after.
func (t Tunnelled) Close() error {
	if err := t.CloseWrite(); err != nil {
		return t.Stream.Close()
	}
	time.AfterFunc(lingering, func() { t.Stream.Close() })
	return nil
}
