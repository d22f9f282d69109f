package xds

import (
	"crypto/tls"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// WriteBuffer is what a gRPC server of Credentials should gather before it
// writes, in bytes: the records of so much are one system call.
const WriteBuffer = 64 << 10

// Credentials are TLS for servers of large responses. crypto/tls writes each
// record with a system call of its own, and the first hundred of a connection are
// of one packet each, for pages that are shown while they load: nobody reads half
// a response here.
func Credentials(cfg *tls.Config) credentials.TransportCredentials {
	cfg = cfg.Clone()
	cfg.DynamicRecordSizingDisabled = true
	return gatheringTLS{credentials.NewTLS(cfg)}
}

type gatheringTLS struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (t gatheringTLS) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	below := &gathered{Conn: raw}
	c, info, err := t.TransportCredentials.ServerHandshake(below)
	if err != nil {
		return nil, nil, err
	}
	return &gathering{Conn: c, below: below}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (t gatheringTLS) Clone() credentials.TransportCredentials {
	return gatheringTLS{t.TransportCredentials.Clone()}
}

// gathering is a connection whose writes are each sent as a whole.
type gathering struct {
	net.Conn // of crypto/tls
	below    *gathered
}

func (c *gathering) Write(b []byte) (int, error) {
	c.below.begin()
	n, err := c.Conn.Write(b)
	if e := c.below.send(); err == nil {
		err = e
	}
	return n, err
}

// gathered is the connection below crypto/tls. That may answer from the reading
// side too, so what is gathered has a lock.
type gathered struct {
	net.Conn

	mu  sync.Mutex
	out *[]byte // nil: nothing is gathered
}

// records hold those of one write, and a bit for their heads.
var records = sync.Pool{New: func() any { b := make([]byte, 0, WriteBuffer+4<<10); return &b }}

func (c *gathered) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = records.Get().(*[]byte)
}

// Write keeps a record until send, or sends it.
func (c *gathered) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == nil {
		return c.Conn.Write(b)
	}
	if len(*c.out)+len(b) > cap(*c.out) {
		if err := c.sendLocked(); err != nil {
			return 0, err
		}
		if len(b) > cap(*c.out) {
			return c.Conn.Write(b)
		}
	}
	*c.out = append(*c.out, b...)
	return len(b), nil
}

func (c *gathered) send() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.sendLocked()
	records.Put(c.out)
	c.out = nil
	return err
}

func (c *gathered) sendLocked() error {
	if len(*c.out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(*c.out)
	*c.out = (*c.out)[:0]
	return err
}
