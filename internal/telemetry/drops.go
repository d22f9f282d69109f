package telemetry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// DatagramDrops counts the datagrams that a proxy did not carry, by the reason.
type DatagramDrops struct {
	mu    sync.Mutex
	live  map[*func() map[string]uint64]struct{}
	ended map[string]uint64
}

var datagramDropsDesc = prometheus.NewDesc("ambit_udp_datagrams_dropped_total",
	"Datagrams that the proxy did not carry, by the reason", []string{"reason"}, nil)

// NewDatagramDrops makes the metric, which the caller registers.
func NewDatagramDrops() *DatagramDrops {
	return &DatagramDrops{live: map[*func() map[string]uint64]struct{}{}, ended: map[string]uint64{}}
}

// Watch counts what a source says until forget is called, which keeps its last
// word. A nil DatagramDrops counts nothing. The reasons are few.
func (d *DatagramDrops) Watch(source func() map[string]uint64) (forget func()) {
	if d == nil {
		return func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[&source] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, there := d.live[&source]; !there {
			return
		}
		delete(d.live, &source)
		for reason, n := range source() {
			d.ended[reason] += n
		}
	}
}

// Add counts some beside what sources say. A nil DatagramDrops counts nothing.
func (d *DatagramDrops) Add(reason string, n uint64) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended[reason] += n
}

// Describe implements prometheus.Collector.
func (d *DatagramDrops) Describe(out chan<- *prometheus.Desc) { out <- datagramDropsDesc }

// Collect implements prometheus.Collector.
func (d *DatagramDrops) Collect(out chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[string]uint64, len(d.ended))
	for reason, n := range d.ended {
		all[reason] = n
	}
	for source := range d.live {
		for reason, n := range (*source)() {
			all[reason] += n
		}
	}
	for reason, n := range all {
		out <- prometheus.MustNewConstMetric(datagramDropsDesc, prometheus.CounterValue, float64(n), reason)
	}
}
