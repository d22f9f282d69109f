package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The baselines of HTTP/3: two hops of quic-go as it is, with a stream for each
// connection and a datagram for each datagram, on one QUIC connection.

// bareALPN names what they speak.
const bareALPN = "bench"

func bareQUIC() *quic.Config {
	return &quic.Config{EnableDatagrams: true, MaxIncomingStreams: boundless, KeepAlivePeriod: 5 * time.Second}
}

// bareEnd is a QUIC stream as an end of a hop.
type bareEnd struct{ *quic.Stream }

func (e bareEnd) CloseWrite() error { return e.Stream.Close() }

func (e bareEnd) Close() error {
	e.CancelRead(0)
	return e.Stream.Close()
}

// runQUICOut is the near hop, of TCP and of UDP: quic-out LISTEN TO CAFILE.
func runQUICOut(ctx context.Context, args []string, ready func()) error {
	cert, err := certificate(ctx, args[2], clientID)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	socket, err := linux.ListenUDP(ctx, nil, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), linux.ListenOptions{Mark: linux.Mark})
	if err != nil {
		return err
	}
	config := cert.ClientTLS([]spiffe.ID{serverID})
	config.NextProtos = []string{bareALPN}
	conn, err := (&quic.Transport{Conn: socket}).Dial(ctx, net.UDPAddrFromAddrPort(to), config, bareQUIC())
	if err != nil {
		return fmt.Errorf("dialling over QUIC: %w", err)
	}
	captured, err := linux.ListenDatagrams(ctx, nil, capturedDatagrams, linux.ListenOptions{Mark: linux.Mark})
	if err != nil {
		return err
	}
	answers, err := linux.NewAnswers(ctx, nil)
	if err != nil {
		return err
	}
	go forwardDatagrams(ctx, conn, captured, answers)
	return hop(ctx, args[0], ready, func(c *net.TCPConn) (end, end, error) {
		s, err := conn.OpenStreamSync(ctx)
		if err != nil {
			return nil, nil, err
		}
		return c, bareEnd{s}, nil
	})
}

// forwardDatagrams carries the one flow that there is.
func forwardDatagrams(ctx context.Context, conn *quic.Conn, captured *linux.DatagramSocket, answers *linux.Answers) {
	var mu sync.Mutex
	var from, to netip.AddrPort
	go func() {
		for {
			b, err := conn.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			mu.Lock()
			client, server := from, to
			mu.Unlock()
			answers.Send(b, server, client)
		}
	}()
	for captured.Receive(func(d linux.Datagram) {
		mu.Lock()
		from, to = d.Source, d.Destination
		mu.Unlock()
		conn.SendDatagram(d.Payload)
	}) == nil {
	}
}

// runQUICIn is the far hop: quic-in LISTEN TO CAFILE.
func runQUICIn(ctx context.Context, args []string, ready func()) error {
	cert, err := certificate(ctx, args[2], serverID)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	socket, err := linux.ListenUDP(ctx, nil, at, linux.ListenOptions{Mark: linux.Mark})
	if err != nil {
		return err
	}
	config := cert.ServerTLS()
	config.NextProtos = []string{bareALPN}
	l, err := (&quic.Transport{Conn: socket}).Listen(config, bareQUIC())
	if err != nil {
		return fmt.Errorf("listening over QUIC: %w", err)
	}
	ready()
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		go giveDatagrams(ctx, conn, args[1])
		go giveStreams(ctx, conn, args[1])
	}
}

// source is the client's address, which the hop takes as its own.
func source(conn *quic.Conn) netip.Addr { return linux.AddrPort(conn.RemoteAddr()).Addr() }

func giveStreams(ctx context.Context, conn *quic.Conn, app string) {
	for {
		s, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		go func() {
			to, err := dial(app, source(conn))
			if err != nil {
				fmt.Fprintln(os.Stderr, "hop:", err)
				s.CancelWrite(0)
				return
			}
			defer to.Close()
			var back sync.WaitGroup
			back.Go(func() { copyLoop(bareEnd{s}, to) })
			copyLoop(to, bareEnd{s})
			back.Wait()
		}()
	}
}

func giveDatagrams(ctx context.Context, conn *quic.Conn, app string) {
	to, err := netip.ParseAddrPort(app)
	if err != nil {
		return
	}
	s, err := linux.DialDatagrams(ctx, nil, to, linux.DialOptions{Mark: linux.Mark, Source: source(conn)})
	if err != nil {
		fmt.Fprintln(os.Stderr, "hop:", err)
		return
	}
	defer s.Close()
	go func() {
		for s.Receive(func(d linux.Datagram) { conn.SendDatagram(append([]byte(nil), d.Payload...)) }) == nil {
		}
	}()
	for {
		b, err := conn.ReceiveDatagram(ctx)
		if err != nil {
			return
		}
		s.Send(b)
	}
}
