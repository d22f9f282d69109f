package terminate

import (
	"crypto/tls"
	"net"
	"testing"
)

// FuzzHello: whatever a connection begins with, its name is read or it is none;
// more bytes never change what a whole beginning has said.
func FuzzHello(f *testing.F) {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { // ends with the pipe
		defer close(done)
		tls.Client(near, &tls.Config{ServerName: "reviews.shop"}).Handshake()
	}()
	var b [4 << 10]byte
	n, err := far.Read(b[:])
	if err != nil {
		f.Fatal(err)
	}
	far.Close()
	<-done
	f.Add(b[:n])
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, whole, err := serverNameOf(in)
		if err == nil && whole {
			if again, stays, err := serverNameOf(append(in[:len(in):len(in)], 22, 3)); again != name || !stays || err != nil {
				t.Errorf("%q, then %q, %v, %v", name, again, stays, err)
			}
		}
		if l := look(in); l != looksUnfinished && look(append(in[:len(in):len(in)], '\n')) != l && len(in) > 0 && in[len(in)-1] != '\r' {
			t.Errorf("%q looks like %d, and then like another", in, l)
		}
	})
}
