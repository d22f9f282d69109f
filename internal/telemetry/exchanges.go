package telemetry

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// ExchangesConfig bounds what Exchanges holds.
type ExchangesConfig struct {
	// Expiry drops a series that no request has used for so long. Zero is one
	// hour.
	Expiry time.Duration
	// MaxSeries is how many label sets are held; beyond it those that were used
	// least recently go. Zero is 5000.
	MaxSeries int
}

// Exchanges turns requests into Istio's request metrics, as a
// prometheus.Collector, and into access records.
type Exchanges struct {
	config ExchangesConfig
	log    *slog.Logger

	mu     sync.Mutex
	series map[exchangeLabels]*exchangeSeries
	// quick finds a series without making its texts: the vocabulary's values
	// are immutable, so a pointer stands for its labels. It is emptied when it
	// has grown too large or a series goes.
	quick map[exchangeKey]*exchangeSeries
}

// result is the labels that tell how a request ended.
type result struct {
	protocol     string
	status, grpc int
	flag         ExchangeFlag
}

// exchangeLabels tell series apart.
type exchangeLabels struct {
	labels
	result
}

// exchangeKey is exchangeLabels before they are texts.
type exchangeKey struct {
	source, destination     *mesh.Workload
	service                 *mesh.Service
	sourceID, destinationID spiffe.ID
	result
}

// exchangeSeries is everything counted under one label set, guarded by
// Exchanges.mu.
type exchangeSeries struct {
	labels                            exchangeLabels
	requests                          uint64
	milliseconds, received, sent      histogram
	requestMessages, responseMessages uint64
	used                              time.Time
}

// NewExchanges makes the metrics, which the caller registers, and logs to log,
// whose component becomes "access".
func NewExchanges(c ExchangesConfig, log *slog.Logger) *Exchanges {
	if c.Expiry == 0 {
		c.Expiry = time.Hour
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 5000
	}
	return &Exchanges{
		config: c, log: log.With("component", "access"),
		series: map[exchangeLabels]*exchangeSeries{}, quick: map[exchangeKey]*exchangeSeries{},
	}
}

// Record counts a request that has ended and writes its one record. It keeps
// nothing of e.
func (x *Exchanges) Record(e *Exchange) {
	x.count(e)
	x.write(e)
}

func (x *Exchanges) count(e *Exchange) {
	key := exchangeKey{e.Source, e.Destination, e.Service, e.SourceID, e.DestinationID, resultOf(e)}
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.quick[key]
	if s == nil {
		s = x.seriesLocked(exchangeLabelsOf(e))
		if len(x.quick) >= 2*x.config.MaxSeries {
			clear(x.quick)
		}
		x.quick[key] = s
	}
	s.requests++
	s.milliseconds.add(float64(e.Duration) / float64(time.Millisecond))
	s.received.add(float64(e.RequestBytes))
	s.sent.add(float64(e.ResponseBytes))
	s.requestMessages += e.RequestMessages
	s.responseMessages += e.ResponseMessages
	s.used = e.Start.Add(e.Duration)
}

func (x *Exchanges) seriesLocked(l exchangeLabels) *exchangeSeries {
	if s := x.series[l]; s != nil {
		return s
	}
	if len(x.series) >= x.config.MaxSeries {
		x.makeRoomLocked()
	}
	s := &exchangeSeries{labels: l}
	x.series[l] = s
	return s
}

// makeRoomLocked drops the tenth that was used longest ago, so that making room
// is rare.
func (x *Exchanges) makeRoomLocked() {
	all := make([]*exchangeSeries, 0, len(x.series))
	for _, s := range x.series {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *exchangeSeries) int { return a.used.Compare(b.used) })
	for _, s := range all[:len(all)/10+1] {
		delete(x.series, s.labels)
	}
	clear(x.quick)
}

func (x *Exchanges) expireLocked(now time.Time) {
	before := len(x.series)
	for l, s := range x.series {
		if now.Sub(s.used) > x.config.Expiry {
			delete(x.series, l)
		}
	}
	if len(x.series) != before {
		clear(x.quick)
	}
}

// resultOf keeps to what the protocols know, since a server may answer with any
// number.
func resultOf(e *Exchange) result {
	r := result{protocol: "http", status: e.Status, grpc: -1, flag: e.Flag}
	if e.Protocol == "grpc" {
		r.protocol, r.grpc = "grpc", e.GRPCStatus
		if r.grpc < 0 || r.grpc > 16 {
			r.grpc = 2 // UNKNOWN, which is what clients make of it
		}
	}
	if r.status < 100 || r.status > 599 {
		r.status = 0
	}
	if r.flag == "" {
		r.flag = ExchangeOK
	}
	return r
}

func exchangeLabelsOf(e *Exchange) exchangeLabels {
	l := labelsOf(&Flow{
		Direction: Waypoint, Source: e.Source, Destination: e.Destination, Service: e.Service,
		SourceID: e.SourceID, DestinationID: e.DestinationID,
	})
	l.mutualTLS = !e.SourceID.IsZero() // how the client came, not how the backend was reached
	return exchangeLabels{l, resultOf(e)}
}
