package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/capsule"
)

// flow is what a stream of CONNECT-UDP has beyond another: its datagrams are
// capsules in DATA (RFC 8441, RFC 9297, 3). What has come is decoded by the
// tunnel's reader, and so never waits in the stream's window.
type flow struct {
	in *capsule.Queue

	// Under stream.rmu.
	decoder capsule.Decoder

	// The sending half: one capsule after the other.
	smu  sync.Mutex
	rest []byte // of one that the end of a context has kept back
}

func newFlow() *flow { return &flow{in: capsule.NewQueue()} }

// deliverCapsules is deliver for a flow.
func (s *stream) deliverCapsules(p []byte) {
	s.rmu.Lock()
	if s.rerr != nil {
		s.rmu.Unlock()
		return
	}
	err := s.udp.decoder.Write(p, s.udp.in.Push)
	s.consumedLocked(len(p))
	s.rmu.Unlock()
	if err != nil {
		s.abort(http2.ErrCodeProtocol, fmt.Errorf("%w: peer broke the protocol: %w", hbone.ErrReset, err))
	}
}

// endLocked tells receivers that nothing more comes; stream.rmu is held.
func (f *flow) endLocked(err error, drop bool) {
	if errors.Is(err, io.EOF) && !f.decoder.Between() {
		err = fmt.Errorf("%w: peer broke the protocol: it ends within a capsule", hbone.ErrReset)
	}
	f.in.End(err, drop)
}

// cut says that the peer has a part of a capsule only.
func (f *flow) cut() bool {
	f.smu.Lock()
	defer f.smu.Unlock()
	return len(f.rest) > 0
}

// ReceiveDatagram implements hbone.Stream.
func (s *stream) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if s.udp == nil {
		return nil, hbone.ErrNoDatagrams
	}
	return s.udp.in.Receive(ctx)
}

// Dropped implements hbone.DropCounter.
func (s *stream) Dropped() uint64 {
	if s.udp == nil {
		return 0
	}
	return s.udp.in.Dropped()
}

// SendDatagram implements hbone.Stream. What of it ctx keeps back goes before the
// next.
func (s *stream) SendDatagram(ctx context.Context, p []byte) error {
	switch {
	case s.udp == nil:
		return hbone.ErrNoDatagrams
	case len(p) > hbone.MaxDatagram:
		return fmt.Errorf("%w: %d bytes", hbone.ErrTooBig, len(p))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	f := s.udp
	f.smu.Lock()
	defer f.smu.Unlock()
	defer s.until(ctx)()
	if len(f.rest) > 0 {
		n, err := s.write(f.rest)
		f.rest = f.rest[n:]
		if err != nil {
			return ctxError(ctx, err)
		}
	}
	b := capsule.AppendHeader(make([]byte, 0, capsule.HeaderLen+len(p)), len(p))
	b = append(b, p...)
	n, err := s.write(b)
	if n > 0 && n < len(b) {
		f.rest = bytes.Clone(b[n:])
	}
	return ctxError(ctx, err)
}

// until ends writes with ctx, until the function is called that it returns.
func (s *stream) until(ctx context.Context) (stop func()) {
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		s.SetWriteDeadline(time.Unix(1, 0))
		close(over)
	})
	return func() {
		if !cancel() {
			<-over
			s.SetWriteDeadline(time.Time{})
		}
	}
}

func ctxError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
