package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ErrNoAgent says that nobody listens on the socket.
var ErrNoAgent = errors.New("ambit cni agent is not running on this node")

// retryEvery is the pause between attempts to reach the agent.
const retryEvery = 100 * time.Millisecond

// Client talks to the agent of this node.
type Client struct {
	// Socket is the agent's; empty is DefaultSocket.
	Socket string
	// Wait is how long an absent agent is waited for; 0 is not at all.
	Wait time.Duration
}

// Add tells of a new sandbox. An error means that the pod must not start now.
func (c Client) Add(ctx context.Context, a Add) error { return c.post(ctx, AddPath, a) }

// Del tells of a sandbox that ends.
func (c Client) Del(ctx context.Context, d Del) error { return c.post(ctx, DelPath, d) }

// maxAnswer bounds what is read of an answer: its head and a reason.
const maxAnswer = 16 << 10

// post asks in HTTP/1.0, of which an answer ends with its connection. It is
// written here since the runtime starts the plugin anew for each pod, and
// net/http with all that it brings is a quarter of that start.
func (c Client) post(ctx context.Context, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return fmt.Errorf("asking the ambit cni agent: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	head := fmt.Sprintf("POST %s HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, len(b))
	if _, err := conn.Write(append([]byte(head), b...)); err != nil {
		return fmt.Errorf("asking the ambit cni agent: %w", because(ctx, err))
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the ambit cni agent's answer: %w", because(ctx, err))
	}
	return verdict(string(answer))
}

// because is the end of ctx, if that is why.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// verdict is nil for 200, and else what the agent says. Anything that is no
// answer is none: the pod waits.
func verdict(answer string) error {
	head, text, whole := strings.Cut(answer, "\r\n\r\n")
	version, status, _ := strings.Cut(head, " ")
	switch {
	case !whole || !strings.HasPrefix(version, "HTTP/1."):
		return fmt.Errorf("reading the ambit cni agent's answer: it is none: %.100q", answer)
	case strings.HasPrefix(status, "200 "):
		return nil
	}
	return fmt.Errorf("ambit cni agent: %s", strings.TrimSpace(text))
}

// dial connects, trying for as long as c.Wait says.
func (c Client) dial(ctx context.Context) (net.Conn, error) {
	socket := c.Socket
	if socket == "" {
		socket = DefaultSocket
	}
	give, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-give.Done():
			return nil, fmt.Errorf("%w (%w)", ErrNoAgent, err)
		case <-time.After(retryEvery):
		}
	}
}
