package echo

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Up sends bytes to a Bulk port, ends its direction, and compares the server's
// count and checksum, which arrive on the other half.
func Up(ctx context.Context, addr string, bytes int64, timeout time.Duration) *Summary {
	s := newSummary(addr)
	s.note(0, s.up(ctx, addr, bytes, timeout))
	return s.finish()
}

func (s *Summary) up(ctx context.Context, addr string, bytes int64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	h := sha256.New()
	body := io.MultiReader(strings.NewReader("up\n"), io.TeeReader(pattern(bytes), h))
	if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, body, make([]byte, 64<<10)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := closeWrite(conn); err != nil {
		return err
	}
	var n int64
	var theirs string
	if _, err := fmt.Fscanf(bufio.NewReader(conn), "%d %s\n", &n, &theirs); err != nil {
		return fmt.Errorf("read the server's checksum: %w", err)
	}
	s.Bytes, s.SHA256 = n, theirs
	if n != bytes || theirs != sum(h) {
		return fmt.Errorf("the server got %d bytes with checksum %s instead of %d with %s", n, theirs, bytes, sum(h))
	}
	return nil
}

// Down receives bytes from a Bulk port until the server ends its direction,
// sends their checksum on the other half, and then asks whether that arrived.
func Down(ctx context.Context, addr string, bytes int64, timeout time.Duration) *Summary {
	s := newSummary(addr)
	s.note(0, s.down(ctx, addr, bytes, timeout))
	return s.finish()
}

func (s *Summary) down(ctx context.Context, addr string, bytes int64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id := rand.Text()
	if err := s.receive(ctx, addr, bytes, id); err != nil {
		return err
	}
	return confirm(ctx, addr, id)
}

func (s *Summary) receive(ctx context.Context, addr string, bytes int64, id string) error {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "down %d %s\n", bytes, id); err != nil {
		return err
	}
	got, want := sha256.New(), sha256.New()
	n, err := io.CopyBuffer(got, struct{ io.Reader }{conn}, make([]byte, 64<<10))
	if err != nil {
		return fmt.Errorf("receive, after %d bytes: %w", n, err)
	}
	s.Bytes, s.SHA256 = n, sum(got)
	if _, err := io.Copy(want, pattern(bytes)); err != nil {
		return err
	}
	if n != bytes || sum(got) != sum(want) {
		return fmt.Errorf("got %d bytes with checksum %s instead of %d with %s", n, sum(got), bytes, sum(want))
	}
	if _, err := fmt.Fprintln(conn, sum(got)); err != nil {
		return fmt.Errorf("write after the server's half-close: %w", err)
	}
	return closeWrite(conn)
}

// confirm asks until the server has dealt with the end of the transfer, which
// may be a moment after the client is done with it.
func confirm(ctx context.Context, addr, id string) error {
	for {
		said, err := ask(ctx, addr, id)
		switch {
		case err != nil:
			return fmt.Errorf("ask for the acknowledgement: %w", err)
		case said == "ok":
			return nil
		case said != "unknown transfer":
			return errors.New(said)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server never saw the end of the transfer: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, addr, id string) (string, error) {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "ack %s\n", id); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// HalfClose tries both half-closes with little data: the client's and the server's.
func HalfClose(ctx context.Context, addr string, timeout time.Duration) *Summary {
	s := newSummary(addr)
	s.note(0, s.up(ctx, addr, 1000, timeout))
	s.note(0, s.down(ctx, addr, 1000, timeout))
	return s.finish()
}

// Hold keeps one connection to a TCP port open until ctx ends or it breaks, and
// sends a numbered line every so often, each of which must come back in time.
func Hold(ctx context.Context, addr string, every, timeout time.Duration) *Summary {
	s := newSummary(addr)
	var longest time.Duration
	if err := s.hold(ctx, addr, every, timeout, &longest); err != nil {
		s.note(0, err)
	}
	s.LongestGap = longest.Round(time.Millisecond).String()
	return s.finish()
}

// HoldMany is Hold of several connections at once. The longest gap is that of
// any.
func HoldMany(ctx context.Context, n int, addr string, every, timeout time.Duration) *Summary {
	one := make([]*Summary, n)
	gaps := make([]time.Duration, n)
	var all sync.WaitGroup
	for i := range one {
		all.Go(func() {
			one[i] = newSummary(addr)
			if err := one[i].hold(ctx, addr, every, timeout, &gaps[i]); err != nil {
				one[i].note(0, err)
			}
		})
	}
	sum := newSummary(addr)
	all.Wait()
	for _, s := range one {
		sum.Attempts, sum.OK, sum.Failed = sum.Attempts+s.Attempts, sum.OK+s.OK, sum.Failed+s.Failed
		for reason, n := range s.Failures {
			sum.Failures[reason] += n
		}
	}
	sum.LongestGap = slices.Max(gaps).Round(time.Millisecond).String()
	return sum.finish()
}

func (s *Summary) hold(ctx context.Context, addr string, every, timeout time.Duration, longest *time.Duration) error {
	dctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(dctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Now()
	for i := 0; ; i++ {
		began := time.Now()
		if err := conn.SetDeadline(began.Add(timeout)); err != nil {
			return err
		}
		line := fmt.Sprintf("ping %d\n", i)
		if _, err := io.WriteString(conn, line); err != nil {
			return fmt.Errorf("ping %d: %w", i, err)
		}
		back, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("ping %d: %w", i, err)
		}
		if back != line {
			return fmt.Errorf("ping %d: %q came back", i, back)
		}
		s.note(time.Since(began), nil)
		*longest = max(*longest, time.Since(last))
		last = time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
