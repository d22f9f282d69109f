package terminate

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/internal/relay"
)

// sniff finds out what a connection speaks where nobody says: by the client's
// first bytes, unless its server speaks first. A client that says nothing for a
// moment gets its backend meanwhile; if it then speaks HTTP, that connection is
// dropped unused.
func (c *crossing) sniff() {
	if err := c.accept(""); err != nil {
		return
	}
	c.stream.SetReadDeadline(time.Now().Add(c.Silence))
	err := c.stream.more()
	c.stream.SetReadDeadline(time.Time{})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.speakAs(c.listen(), nil)
		return
	}
	to, no := c.open()
	if no != nil { // there may still be an answer for HTTP
		if c.listen() == looksHTTP {
			c.http()
		} else {
			c.refuse(no)
		}
		return
	}
	server := awaitServer(to.End.(deadlined), c.interrupt)
	looks := c.listen()
	server.stop()
	c.stream.SetReadDeadline(time.Time{})
	switch {
	case server.failed():
		to.drop()
		c.refuse(unavailable(server.err))
	case len(server.head) > 0:
		c.carry(to, server.head)
	default:
		c.speakAs(looks, to)
	}
}

var past = time.Unix(1, 0)

// speakAs goes on with what was found; to is nil before there is a backend.
func (c *crossing) speakAs(l looks, to *far) {
	if l == looksHTTP {
		if to != nil {
			to.drop()
		}
		c.http()
		return
	}
	if to == nil {
		var no *refusal
		if to, no = c.open(); no != nil {
			c.refuse(no)
			return
		}
	}
	c.carry(to, nil)
}

// open is authorize and connect.
func (c *crossing) open() (*far, *refusal) {
	if c.authorize() != nil {
		return nil, c.denied()
	}
	return c.connect(c.in.Context())
}

// listen reads until the client's first bytes tell, or it is interrupted.
func (c *crossing) listen() looks {
	defer func() { c.stream.SetReadDeadline(time.Time{}) }()
	for begun := false; ; {
		if len(c.stream.head) > 0 {
			if l := look(c.stream.head); l != looksUnfinished {
				return l
			}
			if !begun {
				c.stream.SetReadDeadline(time.Now().Add(c.Unfinished))
				begun = true
			}
		}
		if c.interrupted.Load() || c.stream.more() != nil {
			return looksOther
		}
	}
}

// interrupt ends listen.
func (c *crossing) interrupt() {
	c.interrupted.Store(true)
	c.stream.SetReadDeadline(past)
}

// deadlined is what both kinds of connections to backends are.
type deadlined interface {
	relay.End
	SetReadDeadline(time.Time) error
}

// awaited waits for a server's first bytes.
type awaited struct {
	end  deadlined
	done chan struct{}
	// What came, once done is closed. The orderly end of a server that said
	// nothing is no error.
	head []byte
	err  error
}

// awaitServer reads from a backend, and calls spoken when it has said
// something or has ended. stop must follow.
func awaitServer(end deadlined, spoken func()) *awaited {
	a := &awaited{end: end, done: make(chan struct{})}
	go func() { // ends with stop
		defer close(a.done)
		b := make([]byte, 4<<10)
		n, err := a.end.Read(b)
		a.head, a.err = b[:n], err
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			spoken()
		}
	}()
	return a
}

func (a *awaited) stop() {
	a.end.SetReadDeadline(past)
	<-a.done
	a.end.SetReadDeadline(time.Time{})
}

func (a *awaited) failed() bool {
	return a.err != nil && !errors.Is(a.err, io.EOF) && !errors.Is(a.err, os.ErrDeadlineExceeded)
}
