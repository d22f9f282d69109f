package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

func (c Client) post(ctx context.Context, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("making request %s: %w", path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("asking the ambit cni agent: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return fmt.Errorf("reading the ambit cni agent's answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ambit cni agent: %s", strings.TrimSpace(string(text)))
	}
	return nil
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
