package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/ambit-mesh/ambit/internal/wire/trustpb"
)

var _ Guide = (*CAClient)(nil)

// TrustService is gRPC's name of who tells of roots (internal/wire/trustpb).
const TrustService = "ambit.trust.Trust"

// TrustStream describes its one method.
var TrustStream = grpc.StreamDesc{StreamName: "Follow", ServerStreams: true, ClientStreams: true}

// standingEvery is how often it is looked whether the standing has changed by
// itself: certificates end, and the file of roots is replaced.
const standingEvery = 2 * time.Second

// Guide implements Guide.
func (c *CAClient) Guide(ctx context.Context, standing func() Standing, changed <-chan struct{}, take func(Trust)) error {
	whole := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, release, err := c.dial()
	if err != nil {
		return err
	}
	defer release()
	header, err := c.header()
	if err != nil {
		return err
	}
	stream, err := conn.NewStream(metadata.NewOutgoingContext(ctx, header), &TrustStream, "/"+TrustService+"/"+TrustStream.StreamName)
	if err != nil {
		return fmt.Errorf("%s: %w", c.cfg.Address, unguided(err))
	}
	sent := make(chan error, 1)
	go func() { sent <- c.tell(ctx, stream, standing, changed); cancel() }()
	err = hear(stream, take)
	cancel()
	if said := <-sent; said != nil && !errors.Is(said, io.EOF) && whole.Err() == nil {
		err = said // io.EOF: what was heard says why
	}
	return fmt.Errorf("%s: %w", c.cfg.Address, unguided(err))
}

func unguided(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%w: %w", ErrUnguided, err)
	}
	return err
}

func hear(stream grpc.ClientStream, take func(Trust)) error {
	for {
		b := &pb.Bundle{}
		if err := stream.RecvMsg(b); err != nil {
			return err
		}
		t, err := trustOf(b)
		if err != nil {
			return err
		}
		take(t)
	}
}

func trustOf(b *pb.Bundle) (Trust, error) {
	t := Trust{
		Epoch: b.GetEpoch(), Active: b.GetActive(), Revocations: b.GetRevocations(),
		Spread: time.Duration(b.GetSpreadMilliseconds()) * time.Millisecond,
	}
	for _, der := range b.GetRoots() {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return t, fmt.Errorf("reading the roots told by the control plane: %w", err)
		}
		t.Roots = append(t.Roots, root)
	}
	return t, nil
}

// tell sends the standing whenever it is another one, until ctx ends.
func (c *CAClient) tell(ctx context.Context, stream grpc.ClientStream, standing func() Standing, changed <-chan struct{}) error {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	var last *Standing
	for {
		now := standing()
		now.File = c.fileRoots()
		if last == nil || !reflect.DeepEqual(*last, now) {
			if err := stream.SendMsg(messageOf(now)); err != nil {
				return err
			}
			last = &now
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// fileRoots are those of RootFile, nil if there is none.
func (c *CAClient) fileRoots() []string {
	if c.cfg.RootFile == "" {
		return nil
	}
	text, err := os.ReadFile(c.cfg.RootFile)
	if err != nil {
		return []string{}
	}
	list, err := parsePEM(string(text))
	if err != nil {
		return []string{}
	}
	return Fingerprints(list)
}

func messageOf(s Standing) *pb.Standing {
	m := &pb.Standing{Epoch: s.Epoch, Trusts: s.Trusts, File: s.File, HasFile: s.File != nil}
	for _, h := range s.Holds {
		m.Holds = append(m.Holds, &pb.Held{Root: h.Root, Count: uint32(h.Count), Until: h.Until.Unix()})
	}
	return m
}

// StandingOf reads what a proxy says.
func StandingOf(m *pb.Standing) Standing {
	s := Standing{Epoch: m.GetEpoch(), Trusts: m.GetTrusts()}
	if m.GetHasFile() {
		s.File = append([]string{}, m.GetFile()...)
	}
	for _, h := range m.GetHolds() {
		s.Holds = append(s.Holds, Held{Root: h.GetRoot(), Count: int(h.GetCount()), Until: time.Unix(h.GetUntil(), 0)})
	}
	return s
}

// BundleOf writes a trust.
func BundleOf(t Trust) *pb.Bundle {
	b := &pb.Bundle{Epoch: t.Epoch, Active: t.Active, Revocations: t.Revocations, SpreadMilliseconds: uint32(t.Spread / time.Millisecond)}
	for _, r := range t.Roots {
		b.Roots = append(b.Roots, r.Raw)
	}
	return b
}
