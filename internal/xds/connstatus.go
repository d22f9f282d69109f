package xds

import (
	"sync"
	"time"
)

// ConnStatus is what a client knows of its connection, for admin and metrics.
type ConnStatus struct {
	Connected bool
	// Since is when that last changed; zero before the first attempt ended.
	Since time.Time
	// LastContact is when the server last said anything.
	LastContact time.Time
	// LastError is why the last connection ended or did not come about.
	LastError string
	// Connections and Rejected count connections made and responses rejected.
	Connections, Rejected int
}

// Status tells how the connection is.
func (c *Client) Status() ConnStatus { return c.status.get() }

type connStatus struct {
	mu sync.Mutex
	s  ConnStatus
}

func (c *connStatus) get() ConnStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

func (c *connStatus) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Connected, c.s.Since, c.s.LastError = true, time.Now(), ""
	c.s.Connections++
}

func (c *connStatus) contact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.LastContact = time.Now()
}

func (c *connStatus) rejected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Rejected++
}

func (c *connStatus) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s.Connected || c.s.Since.IsZero() {
		c.s.Connected, c.s.Since = false, time.Now()
	}
	if err != nil {
		c.s.LastError = err.Error()
	}
}
