package zds

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Client is ztunnel's end of one connection. It is used by one goroutine:
// Receive, then Ack, and again.
type Client struct {
	c   *net.UnixConn
	buf [maxMessage]byte
}

// Dial connects to the agent and greets it.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connecting to the cni agent: %w", err)
	}
	client := &Client{c: c.(*net.UnixConn)}
	hello, err := marshalHello()
	if err == nil {
		err = client.send(hello)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greeting the cni agent: %w", err)
	}
	return client, nil
}

// Receive waits for the next request; each must be answered by Ack before the
// next. io.EOF means that the agent has gone. The end of ctx ends the wait and
// makes the connection useless.
func (c *Client) Receive(ctx context.Context) (Request, error) {
	stop := context.AfterFunc(ctx, func() { c.c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, f, err := readPacket(c.c, c.buf[:])
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Request{}, err
	}
	r, err := unmarshalRequest(b)
	switch {
	case err != nil:
	case r.Kind == Add && f == nil:
		err = violation("add without a network namespace")
	case r.Kind != Add && f != nil:
		err = violation("%s with a descriptor", r.Kind)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return Request{}, err
	}
	r.NetNS = f
	return r, nil
}

// Ack answers the last request: nil is success, anything else is told to the
// agent, which goes on.
func (c *Client) Ack(failure error) error {
	reason := ""
	if failure != nil {
		reason = failure.Error()
	}
	b, err := marshalAck(reason)
	if err != nil {
		return err
	}
	return c.send(b)
}

func (c *Client) send(b []byte) error {
	c.c.SetWriteDeadline(time.Now().Add(AckTimeout))
	return writePacket(c.c, b, nil)
}

// Close ends the connection.
func (c *Client) Close() error { return c.c.Close() }
