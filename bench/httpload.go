package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
)

// loaded is what a generator of load saw.
type loaded struct {
	Requests int
	Seconds  float64
	// P50 and P99 are in microseconds, from when a request was due.
	P50, P99 float64
}

// exchangeOnce makes one request by a connection of a worker's.
type exchangeOnce func(ctx context.Context) error

// workers are how many requests a generator has open at once.
const workers = 16

// runLoad makes requests: http-load KIND ADDRESS RATE SECONDS CAFILE. With rate
// 0 each worker asks again at once; else requests are due at that pace,
// whatever became of earlier ones.
func runLoad(ctx context.Context, args []string, ready func()) error {
	rate, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	do, end, err := client(ctx, args[0], args[1], args[4])
	if err != nil {
		return err
	}
	defer end()
	for w := range workers { // every connection is there, and everybody warm
		if err := do(w)(ctx); err != nil {
			return err
		}
	}
	ready()
	l, err := generate(ctx, do, rate, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

func generate(ctx context.Context, do func(worker int) exchangeOnce, rate float64, d time.Duration) (loaded, error) {
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var all sync.WaitGroup
	begin := time.Now()
	for w := range workers {
		all.Go(func() {
			one := do(w)
			var own []time.Duration
			for i := 0; time.Since(begin) < d; i++ {
				due := time.Now()
				if rate > 0 {
					due = begin.Add(time.Duration(float64(i*workers+w) / rate * float64(time.Second)))
					time.Sleep(time.Until(due))
				}
				if err := one(ctx); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				own = append(own, time.Since(due))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	all.Wait()
	if failed != nil {
		return loaded{}, failed
	}
	l := loaded{Requests: len(took), Seconds: time.Since(begin).Seconds()}
	slices.Sort(took)
	us := func(p float64) float64 { return float64(percentile(took, p).Nanoseconds()) / 1e3 }
	l.P50, l.P99 = us(0.5), us(0.99)
	return l, nil
}

// client makes the workers' connections.
func client(ctx context.Context, kind, address, caFile string) (do func(int) exchangeOnce, end func(), err error) {
	switch kind {
	case "http1":
		return httpClient(address, false, 1, nil, nil)
	case "http2":
		return httpClient(address, true, 4, nil, nil)
	case "body64k":
		return httpClient(address, false, 1, bytes.Repeat([]byte("b"), 64<<10), nil)
	case "grpc":
		return grpcClient(address)
	case "hbone":
		dial, close, err := tunnelTo(ctx, address, caFile)
		if err != nil {
			return nil, nil, err
		}
		do, end, err := httpClient(benchVIP.String(), false, 1, nil, dial)
		return do, func() { end(); close() }, err
	}
	return nil, nil, fmt.Errorf("no kind of load %q", kind)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// httpClient has a connection for each worker in HTTP/1.1, and n for all of them
// in HTTP/2.
func httpClient(address string, two bool, n int, body []byte, dial dialFunc) (func(int) exchangeOnce, func(), error) {
	if !two {
		n = workers
	}
	transports := make([]*http.Transport, n)
	for i := range transports {
		transports[i] = &http.Transport{DialContext: dial, DisableCompression: true, Protocols: new(http.Protocols)}
		transports[i].Protocols.SetHTTP1(!two)
		transports[i].Protocols.SetUnencryptedHTTP2(two)
	}
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	do := func(w int) exchangeOnce {
		t := transports[w%n]
		return func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/", bytes.NewReader(body))
			if err != nil {
				return err
			}
			resp, err := t.RoundTrip(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			got, err := io.Copy(io.Discard, resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || body != nil && got != int64(len(body))) {
				err = fmt.Errorf("answered %s with %d bytes", resp.Status, got)
			}
			return err
		}
	}
	return do, func() {
		for _, t := range transports {
			t.CloseIdleConnections()
		}
	}, nil
}

func grpcClient(address string) (func(int) exchangeOnce, func(), error) {
	conns := make([]*grpc.ClientConn, 4)
	for i := range conns {
		var err error
		if conns[i], err = grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return nil, nil, err
		}
	}
	do := func(w int) exchangeOnce {
		c := healthpb.NewHealthClient(conns[w%len(conns)])
		return func(ctx context.Context) error {
			_, err := c.Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		}
	}
	return do, func() {
		for _, c := range conns {
			c.Close()
		}
	}, nil
}

// tunnelTo opens streams in one tunnel to a waypoint, as a client's ztunnel
// does.
func tunnelTo(ctx context.Context, address, caFile string) (dialFunc, func(), error) {
	ca, err := certstest.Load(caFile)
	if err != nil {
		return nil, nil, err
	}
	credentials, stop := credentialsOf(ca)
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		stop()
		return nil, nil, err
	}
	d := h2.NewDialer(h2.Config{Credentials: credentials, Connect: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", to.String())
	}})
	tunnel, err := d.Dial(ctx, hbone.Target{Address: to, Self: benchWorkload("client", "127.0.0.1").Identity(), Accept: acceptable("wp")})
	if err != nil {
		stop()
		return nil, nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		s, _, err := tunnel.Open(ctx, hbone.Request{Authority: benchVIP.String()})
		if err != nil {
			return nil, err
		}
		return hbone.NewConn(s, tunnel.Peer().Local, benchVIP), nil
	}
	return dial, func() { tunnel.Close(); stop() }, nil
}

// runHold opens connections, makes a request on each, and keeps them: http-hold
// ADDRESS COUNT.
func runHold(ctx context.Context, args []string, ready func()) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for range n {
		c, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 4<<10)); err != nil {
			return fmt.Errorf("waiting for an answer: %w", err)
		}
	}
	ready()
	<-ctx.Done()
	return nil
}
