package telemetry

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TrafficConfig bounds what Traffic holds.
type TrafficConfig struct {
	// Expiry drops a series that no connection has used for so long. Zero is
	// one hour.
	Expiry time.Duration
	// MaxSeries is how many label sets are held; beyond it the least recently
	// used idle ones go. Should all be in use, further connections are counted
	// under unknown labels. Zero is 20000.
	MaxSeries int
	// Reporters are the directions that this proxy has. None is Inbound and
	// Outbound, which are ztunnel's.
	Reporters []Direction
}

// Traffic is Istio's TCP metrics as a prometheus.Collector. A connection costs
// one lookup when it opens; its bytes are read when somebody scrapes.
type Traffic struct {
	config TrafficConfig

	mu     sync.Mutex
	series map[labels]*series
	open   [directionCount]int
	cuts   [directionCount][cutCount]uint64

	lookups map[lookup]*lookups
}

// series is all counters of one label set, guarded by Traffic.mu.
type series struct {
	labels         labels
	opened         uint64
	received, sent uint64
	// toServer and toClient are datagrams.
	toServer, toClient uint64
	closed, failed     [flagCount]uint64
	live               map[*counted]struct{}
	used               time.Time
}

// counted is one live connection's share of a series.
type counted struct {
	counter            Counter
	toServer, toClient uint64 // already added

	datagramsToServer, datagramsToClient uint64 // already added
}

// NewTraffic makes the metrics; the caller registers them.
func NewTraffic(c TrafficConfig) *Traffic {
	if c.Expiry == 0 {
		c.Expiry = time.Hour
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 20000
	}
	if len(c.Reporters) == 0 {
		c.Reporters = []Direction{Inbound, Outbound}
	}
	return &Traffic{config: c, series: map[labels]*series{}, lookups: map[lookup]*lookups{}}
}

// begin counts an opened connection.
func (t *Traffic) begin(l labels, c Counter) (*series, *counted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.seriesLocked(l)
	s.opened++
	s.used = time.Now()
	n := &counted{counter: c}
	s.live[n] = struct{}{}
	if !l.datagrams {
		t.open[l.direction]++
	}
	return s, n
}

// end counts it as closed.
func (t *Traffic) end(s *series, n *counted, o Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.addLocked(n)
	delete(s.live, n)
	s.closed[o.Flag]++
	if o.Flag != FlagNone {
		s.failed[o.Flag]++
	}
	if o.Cut != CutNone && !s.labels.datagrams {
		t.cuts[s.labels.direction][o.Cut]++
	}
	s.used = time.Now()
	if !s.labels.datagrams {
		t.open[s.labels.direction]--
	}
}

// cut counts a connection that no series is for.
func (t *Traffic) cut(d Direction, why Cut) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cuts[d][why]++
}

func (s *series) addLocked(n *counted) {
	toServer, toClient := n.counter.Load()
	s.received += toServer - n.toServer
	s.sent += toClient - n.toClient
	n.toServer, n.toClient = toServer, toClient
	if c, ok := n.counter.(DatagramCounter); ok {
		toServer, toClient := c.Datagrams()
		s.toServer += toServer - n.datagramsToServer
		s.toClient += toClient - n.datagramsToClient
		n.datagramsToServer, n.datagramsToClient = toServer, toClient
	}
}

func (t *Traffic) seriesLocked(l labels) *series {
	if s := t.series[l]; s != nil {
		return s
	}
	if len(t.series) >= t.config.MaxSeries && !t.makeRoomLocked() {
		l = labelsOf(&Flow{Direction: l.direction, Datagrams: l.datagrams})
		if s := t.series[l]; s != nil {
			return s // one series a direction may exceed the bound
		}
	}
	s := &series{labels: l, live: map[*counted]struct{}{}}
	t.series[l] = s
	return s
}

// makeRoomLocked drops the idle tenth that was used longest ago, so that
// making room is rare.
func (t *Traffic) makeRoomLocked() bool {
	var idle []*series
	for _, s := range t.series {
		if len(s.live) == 0 {
			idle = append(idle, s)
		}
	}
	slices.SortFunc(idle, func(a, b *series) int { return a.used.Compare(b.used) })
	idle = idle[:min(len(idle), t.config.MaxSeries/10+1)]
	for _, s := range idle {
		delete(t.series, s.labels)
	}
	return len(idle) > 0
}

func (t *Traffic) expireLocked(now time.Time) {
	for l, s := range t.series {
		if len(s.live) == 0 && now.Sub(s.used) > t.config.Expiry {
			delete(t.series, l)
		}
	}
}

// family is one metric's two descriptions: without and with locality labels.
type family [2]*prometheus.Desc

func newFamily(name, help string) family {
	return family{
		prometheus.NewDesc(name, help, connectionNames, nil),
		prometheus.NewDesc(name, help, append(slices.Clone(connectionNames), localityNames...), nil),
	}
}

// metrics are those of connections, or of flows of datagrams.
type metrics struct{ opened, closed, failed, received, sent family }

// The metrics of UDP are named after those of TCP; Istio has none.
var (
	tcpFamilies = metrics{openedFamily, closedFamily, failedFamily, receivedFamily, sentFamily}
	udpFamilies = metrics{
		newFamily("istio_udp_flows_opened_total", "The total number of UDP flows that began"),
		newFamily("istio_udp_flows_closed_total", "The total number of UDP flows that ended"),
		newFamily("istio_udp_flows_failed_total", "The total number of UDP flows that failed"),
		newFamily("istio_udp_received_bytes_total", "The total number of bytes of UDP sent by clients to servers"),
		newFamily("istio_udp_sent_bytes_total", "The total number of bytes of UDP sent by servers to clients"),
	}
	datagramsReceivedFamily = newFamily("istio_udp_received_datagrams_total", "The total number of datagrams sent by clients to servers")
	datagramsSentFamily     = newFamily("istio_udp_sent_datagrams_total", "The total number of datagrams sent by servers to clients")

	openedFamily   = newFamily("istio_tcp_connections_opened_total", "The total number of TCP connections opened")
	closedFamily   = newFamily("istio_tcp_connections_closed_total", "The total number of TCP connections closed")
	failedFamily   = newFamily("istio_tcp_connections_failed_total", "The total number of TCP connections that failed")
	receivedFamily = newFamily("istio_tcp_received_bytes_total", "The total number of bytes sent by clients to servers")
	sentFamily     = newFamily("istio_tcp_sent_bytes_total", "The total number of bytes sent by servers to clients")
	cutDesc        = prometheus.NewDesc("ambit_tcp_connections_cut_total", "Connections that the proxy ended though both ends would have kept them", []string{"reporter", "cause"}, nil)
	socketsDesc    = prometheus.NewDesc("istio_tcp_sockets_open", "The number of connections open now", []string{"reporter"}, nil)
)

// Describe describes nothing: a family's series differ in their labels.
func (t *Traffic) Describe(chan<- *prometheus.Desc) {}

// Collect reads the live connections, drops what has expired and gives the
// rest.
func (t *Traffic) Collect(out chan<- prometheus.Metric) {
	for _, m := range t.collect(time.Now()) {
		out <- m
	}
}

func (t *Traffic) collect(now time.Time) []prometheus.Metric {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	out := append(make([]prometheus.Metric, 0, 5*len(t.series)+2), t.collectLookupsLocked(now)...)
	add := func(f family, s *series, flag Flag, v uint64) {
		desc := f[0]
		if s.labels.locality {
			desc = f[1]
		}
		out = append(out, prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), s.labels.values(flag)...))
	}
	for _, s := range t.series {
		for n := range s.live {
			s.addLocked(n)
		}
		all := &tcpFamilies
		if s.labels.datagrams {
			all = &udpFamilies
			add(datagramsReceivedFamily, s, FlagNone, s.toServer)
			add(datagramsSentFamily, s, FlagNone, s.toClient)
		}
		add(all.opened, s, FlagNone, s.opened)
		add(all.received, s, FlagNone, s.received)
		add(all.sent, s, FlagNone, s.sent)
		for f := range flagCount {
			if s.closed[f] > 0 {
				add(all.closed, s, f, s.closed[f])
			}
			if s.failed[f] > 0 {
				add(all.failed, s, f, s.failed[f])
			}
		}
	}
	for _, d := range t.config.Reporters {
		out = append(out, prometheus.MustNewConstMetric(socketsDesc, prometheus.GaugeValue, float64(t.open[d]), d.reporter()))
		for why := CutNone + 1; why < cutCount; why++ {
			if t.cuts[d][why] == 0 {
				continue
			}
			out = append(out, prometheus.MustNewConstMetric(cutDesc, prometheus.CounterValue, float64(t.cuts[d][why]), d.reporter(), why.String()))
		}
	}
	return out
}
