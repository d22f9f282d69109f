package xds

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// countedConn counts writes and how much each took.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	writes []int
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(b))
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// TestWhatIsWrittenAtOnceIsSentAtOnce: all arrives, and the records of a write
// are one system call from the beginning of a connection on.
func TestWhatIsWrittenAtOnceIsSentAtOnce(t *testing.T) {
	near, far := net.Pipe()
	counted := &countedConn{Conn: near}
	var work sync.WaitGroup
	defer work.Wait()
	defer far.Close()
	size := 10*WriteBuffer + 17
	sent := make([]byte, size)
	rand.Read(sent)
	work.Go(func() {
		defer near.Close()
		c, _, err := Credentials(&tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}).Clone().ServerHandshake(counted)
		if err != nil {
			t.Error(err)
			return
		}
		counted.mu.Lock()
		counted.writes = nil
		counted.mu.Unlock()
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), WriteBuffer)
			if m, err := c.Write(rest[:n]); err != nil || m != n {
				t.Errorf("%d bytes written of %d: %v", m, n, err)
				return
			}
			rest = rest[n:]
		}
		if n, err := c.Write(make([]byte, 3*WriteBuffer)); err != nil || n != 3*WriteBuffer {
			t.Errorf("more than is gathered: %d, %v", n, err)
		}
		c.Close()
	})
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	got, err := io.ReadAll(client)
	if err != nil || len(got) != size+3*WriteBuffer || !bytes.Equal(got[:size], sent) {
		t.Fatalf("%d bytes of %d came, or others (%v)", len(got), size+3*WriteBuffer, err)
	}
	work.Wait()
	// Ten whole buffers and the rest, three or four for what is too much, the end.
	if n := len(counted.writes); n > 16 {
		t.Errorf("%d writes: %v", n, counted.writes)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
