package datagrams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/internal/linux"
)

var (
	client = netip.MustParseAddrPort("10.0.0.1:40000")
	other  = netip.MustParseAddrPort("10.0.0.1:40001")
	server = netip.MustParseAddrPort("10.0.0.9:5353")
)

// network is what one table has to do with: it carries flows to itself, is what answers
// are sent by, and hears of flows that ended.
type network struct {
	mu       sync.Mutex
	conns    []*conn // opened, in order
	answers  []string
	ended    []Ended
	refuse   error         // of what is opened or answered next
	opening  time.Duration // how long it takes
	unopened int           // how often it was refused
}

// conn is a flow that was opened.
type conn struct {
	net  *network
	flow Flow
	back chan string
	gone chan struct{}
	once sync.Once

	mu    sync.Mutex
	sent  []string
	stuck bool // Send does not return before Close
	fails error
}

func (n *network) Open(ctx context.Context, f Flow) (Conn, error) {
	select {
	case <-time.After(n.opening):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		n.unopened++
		return nil, n.refuse
	}
	c := &conn{net: n, flow: f, back: make(chan string), gone: make(chan struct{})}
	n.conns = append(n.conns, c)
	return c, nil
}

func (n *network) Send(payload []byte, from, to netip.AddrPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return n.refuse
	}
	n.answers = append(n.answers, fmt.Sprintf("%s to %s: %s", from, to, payload))
	return nil
}

func (c *conn) Send(payload []byte) error {
	c.mu.Lock()
	stuck, fails := c.stuck, c.fails
	if !stuck && fails == nil {
		c.sent = append(c.sent, string(payload))
	}
	c.mu.Unlock()
	if stuck {
		<-c.gone
		return net.ErrClosed
	}
	return fails
}

func (c *conn) Receive(take func([]byte)) error {
	select {
	case text, ok := <-c.back:
		if !ok {
			return errors.New("the other end has gone")
		}
		take([]byte(text))
		return nil
	case <-c.gone:
		return net.ErrClosed
	}
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}

func (c *conn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *conn) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

// start makes a table on a network, inside synctest.
func start(t *testing.T, c Config) (*Table, *network) {
	n := &network{}
	c.Carrier, c.Answers, c.Logger = n, n, slog.New(slog.DiscardHandler)
	c.Ended = func(e Ended) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.ended = append(n.ended, e)
	}
	table := New(c)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := table.Drain(ctx); err != nil {
			t.Error(err)
		}
	})
	return table, n
}

// say has a program send a text, and waits until nothing moves any more.
func say(t *Table, from netip.AddrPort, text string) {
	t.Take(linux.Datagram{Payload: []byte(text), Source: from, Destination: server})
	synctest.Wait()
}

// back has the other end answer.
func (n *network) answer(i int, text string) {
	n.conns[i].back <- text
	synctest.Wait()
}

func TestWhatGoesFromOneAddressToAnotherIsAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{})
		say(table, client, "one")
		say(table, other, "of another socket")
		say(table, client, "two")
		table.Take(linux.Datagram{Payload: []byte("to another"), Source: client, Destination: other})
		synctest.Wait()
		var got []string
		for _, c := range n.conns {
			got = append(got, fmt.Sprintf("%s to %s: %q", c.flow.Source, c.flow.Destination, c.all()))
		}
		if diff := cmp.Diff([]string{
			`10.0.0.1:40000 to 10.0.0.9:5353: ["one" "two"]`,
			`10.0.0.1:40001 to 10.0.0.9:5353: ["of another socket"]`,
			`10.0.0.1:40000 to 10.0.0.1:40001: ["to another"]`,
		}, got); diff != "" {
			t.Error(diff)
		}
		n.answer(1, "hello")
		n.answer(0, "")
		if diff := cmp.Diff([]string{"10.0.0.9:5353 to 10.0.0.1:40001: hello", "10.0.0.9:5353 to 10.0.0.1:40000: "}, n.answers); diff != "" {
			t.Error(diff)
		}
	})
}

// TestAFlowEndsWhenNobodySends: each story is what happens, and when; a flow
// ends at the given time and where it leads is chosen once.
func TestAFlowEndsWhenNobodySends(t *testing.T) {
	type story []struct {
		at   time.Duration
		what string // "ask" or "answer"
	}
	for _, tt := range []struct {
		name  string
		story story
		ends  time.Duration
	}{
		{"nobody answers", story{{0, "ask"}}, 30 * time.Second},
		{"nobody answers, though asked again", story{{0, "ask"}, {29 * time.Second, "ask"}}, 59 * time.Second},
		{"an answer lets it live", story{{0, "ask"}, {time.Second, "answer"}}, 181 * time.Second},
		{"so does a question after it", story{{0, "ask"}, {time.Second, "answer"}, {150 * time.Second, "ask"}}, 330 * time.Second},
		{"and an answer that nobody asked for", story{{0, "ask"}, {29 * time.Second, "answer"}, {200 * time.Second, "answer"}}, 380 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, n := start(t, Config{})
				began := time.Now()
				for _, s := range tt.story {
					time.Sleep(s.at - time.Since(began))
					if s.what == "ask" {
						say(table, client, "hi")
					} else {
						n.answer(0, "hello")
					}
				}
				time.Sleep(tt.ends - time.Millisecond - time.Since(began))
				synctest.Wait()
				if table.Flows() != 1 || len(n.conns) != 1 {
					t.Errorf("just before: %d flows, opened %d times", table.Flows(), len(n.conns))
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if table.Flows() != 0 || len(n.ended) != 1 {
					t.Fatalf("%d flows, %d ended", table.Flows(), len(n.ended))
				}
				if e := n.ended[0]; e.Lasted != tt.ends || !errors.Is(e.Why, ErrIdle) {
					t.Errorf("lasted %v, %v; want %v", e.Lasted, e.Why, tt.ends)
				}
				say(table, client, "again")
				if len(n.conns) != 2 {
					t.Error("the next datagram opens no flow")
				}
			})
		})
	}
}

func TestAFlowWhoseCarrierHangsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{})
		say(table, client, "one")
		n.conns[0].set(func() { n.conns[0].stuck = true })
		for range 100 { // ends although its program goes on
			say(table, client, "more")
			time.Sleep(time.Second)
		}
		if len(n.ended) == 0 {
			t.Error("the flow lives on")
		}
		if table.waiting.Load() != int64(len("more")*table.flows[Flow{client, server}].queue.len()) {
			t.Errorf("%d bytes wait", table.waiting.Load())
		}
	})
}

// TestAFlowIsNotIdleWhileItIsOpened: a handshake may take longer than a flow lasts in
// which nobody sends.
func TestAFlowIsNotIdleWhileItIsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{Unreplied: time.Second, Replied: time.Second})
		n.mu.Lock()
		n.opening = 5 * time.Second
		n.mu.Unlock()
		say(table, client, "one")
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.conns) != 1 || len(n.conns[0].sent) != 1 || len(n.ended) != 0 {
			t.Errorf("%d flows were opened and %d ended, want one that carries", len(n.conns), len(n.ended))
		}
	})
}

// TestWhoIsNotAnsweredMakesRoom: somebody who sends with the addresses of many
// keeps nobody out who is answered.
func TestWhoIsNotAnsweredMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{MaxFlows: 10})
		say(table, client, "one")
		n.answer(0, "hello")
		for i := range 1000 {
			say(table, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 7), "flood")
		}
		say(table, other, "let me in")
		n.answer(len(n.conns)-1, "hello")
		say(table, client, "two")
		if got := n.conns[0].all(); len(got) != 2 || table.Flows() != 10 || table.Dropped() != (Drops{}) {
			t.Errorf("%d flows, dropped %v; of the first was carried %q", table.Flows(), table.Dropped(), got)
		}
		for _, e := range n.ended {
			if !errors.Is(e.Why, ErrCrowded) || e.Source == client || e.Source == other {
				t.Errorf("ended: %+v", e)
			}
		}
		if len(n.ended) != 992 {
			t.Errorf("%d ended", len(n.ended))
		}
	})
}

func TestADatagramThatCannotBeCarriedIsCounted(t *testing.T) {
	oops := errors.New("oops")
	for _, tt := range []struct {
		name string
		c    Config
		do   func(*testing.T, *Table, *network)
		want Drops
	}{
		{"more flows than may be", Config{MaxFlows: 1}, func(_ *testing.T, table *Table, n *network) {
			say(table, client, "one")
			n.answer(0, "hello")
			say(table, other, "two")
			say(table, client, "three")
		}, Drops{TooManyFlows: 1}},
		{"more than may wait on a flow", Config{Queue: 3}, func(_ *testing.T, table *Table, n *network) {
			say(table, client, "one")
			n.conns[0].set(func() { n.conns[0].stuck = true })
			for range 10 {
				say(table, client, "more")
			}
		}, Drops{QueueFull: 6}},
		{"more bytes than may wait", Config{Waiting: 10}, func(_ *testing.T, table *Table, n *network) {
			n.opening = time.Second
			for range 3 {
				say(table, client, "four")
				say(table, other, "four")
			}
		}, Drops{MemoryFull: 4}},
		{"to where no flow can be opened", Config{}, func(t *testing.T, table *Table, n *network) {
			n.refuse = oops
			for range 10 {
				say(table, client, "hi")
			}
			if n.unopened != 1 {
				t.Errorf("tried %d times at once", n.unopened)
			}
			time.Sleep(table.Rest)
			synctest.Wait()
			say(table, client, "hi")
			if n.unopened != 2 {
				t.Errorf("tried %d times", n.unopened)
			}
		}, Drops{NotOpened: 11}},
		{"to where opening takes too long", Config{}, func(_ *testing.T, table *Table, n *network) {
			n.opening = time.Hour
			say(table, client, "hi")
			time.Sleep(table.Opening)
			synctest.Wait()
		}, Drops{NotOpened: 1}},
		{"what the carrier does not take", Config{}, func(_ *testing.T, table *Table, n *network) {
			say(table, client, "one")
			n.conns[0].set(func() { n.conns[0].fails = oops })
			say(table, client, "two")
			n.conns[0].set(func() { n.conns[0].fails = nil })
			say(table, client, "three")
		}, Drops{NotSent: 1}},
		{"an answer that its program does not get", Config{}, func(_ *testing.T, table *Table, n *network) {
			say(table, client, "one")
			n.refuse = oops
			n.answer(0, "hello")
		}, Drops{NotAnswered: 1}},
		{"after the end", Config{}, func(_ *testing.T, table *Table, n *network) {
			table.Drain(context.Background())
			say(table, client, "hi")
		}, Drops{Late: 1}},
		{"what nobody captured", Config{}, func(_ *testing.T, table *Table, n *network) {
			table.Take(linux.Datagram{Source: client, Destination: netip.MustParseAddrPort("127.0.0.1:15001")})
			table.Take(linux.Datagram{Source: client})
		}, Drops{Misdirected: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, n := start(t, tt.c)
				tt.do(t, table, n)
				if diff := cmp.Diff(tt.want, table.Dropped()); diff != "" {
					t.Errorf("by the reasons' order:\n%s", diff)
				}
			})
		})
	}
}

func TestAFlowThatEndedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{Queue: 1})
		began := time.Now()
		say(table, client, "one")
		say(table, client, "four")
		n.answer(0, "hello")
		n.conns[0].set(func() { n.conns[0].stuck = true })
		for range 3 {
			say(table, client, "lost")
		}
		time.Sleep(time.Minute)
		close(n.conns[0].back)
		synctest.Wait()
		want := []Ended{{
			Flow: Flow{client, server}, Started: began, Lasted: time.Minute, Sent: Count{2, 7}, Received: Count{1, 5},
			Dropped: Drops{QueueFull: 1, NotSent: 2},
		}}
		if diff := cmp.Diff(want, n.ended, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreFields(Ended{}, "Why")); diff != "" {
			t.Error(diff)
		}
		if len(n.ended) == 1 && n.ended[0].Why.Error() != "the other end has gone" {
			t.Errorf("why: %v", n.ended[0].Why)
		}
	})
}

func TestADrainWaitsForFlowsAndCutsThemAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{})
		say(table, client, "one")
		n.answer(0, "hello")
		time.Sleep(100 * time.Second)
		say(table, other, "two")
		n.answer(1, "hello")
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
		defer cancel()
		began := time.Now()
		if err := table.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if lasted := time.Since(began); lasted != 100*time.Second {
			t.Errorf("drained after %v", lasted)
		}
		var why []error
		for _, e := range n.ended {
			why = append(why, e.Why)
		}
		if diff := cmp.Diff([]error{ErrIdle, ErrDrained}, why, cmpopts.EquateErrors()); diff != "" {
			t.Error(diff)
		}
	})
}

// source is one of datagrams, and of an error between them.
type source struct {
	in   chan linux.Datagram
	gone chan struct{}
	once sync.Once
}

func (s *source) Receive(take func(linux.Datagram)) error {
	select {
	case d := <-s.in:
		if !d.Source.IsValid() {
			return errors.New("oops")
		}
		take(d)
		return nil
	case <-s.gone:
		return net.ErrClosed
	}
}

func (s *source) Lost() (uint32, error) { return 7, nil }

func (s *source) Close() error {
	s.once.Do(func() { close(s.gone) })
	return nil
}

func TestSourcesAreServedUntilTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, n := start(t, Config{})
		var sources [2]*source
		for i := range sources {
			sources[i] = &source{in: make(chan linux.Datagram), gone: make(chan struct{})}
			table.Serve(sources[i])
		}
		sources[0].in <- linux.Datagram{} // fails, and goes on
		for _, s := range sources {
			s.in <- linux.Datagram{Payload: []byte("hi"), Source: client, Destination: server}
		}
		synctest.Wait()
		if got := n.conns[0].all(); len(n.conns) != 1 || len(got) != 2 {
			t.Errorf("%d flows, sent %q", len(n.conns), got)
		}
		for range 2 { // the kernel's losses stay known
			if got := table.Dropped(); got != (Drops{Overrun: 14}) {
				t.Errorf("dropped %v", got)
			}
			if err := table.Drain(context.Background()); err != nil {
				t.Error(err)
			}
		}
		late := &source{gone: make(chan struct{})}
		table.Serve(late)
		<-late.gone
	})
}
