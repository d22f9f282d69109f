package telemetry

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// exchangeNames are the labels of every request metric.
var exchangeNames = append(slices.Clone(endNames),
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy")

func exchangeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("istio_"+name, help, exchangeNames, nil)
}

var (
	requestsDesc         = exchangeDesc("requests_total", "The total number of requests")
	durationDesc         = exchangeDesc("request_duration_milliseconds", "How long requests took, from their first byte to the last of the answer")
	requestBytesDesc     = exchangeDesc("request_bytes", "The sizes of requests' bodies")
	responseBytesDesc    = exchangeDesc("response_bytes", "The sizes of answers' bodies")
	requestMessagesDesc  = exchangeDesc("request_messages_total", "The total number of gRPC messages sent by clients")
	responseMessagesDesc = exchangeDesc("response_messages_total", "The total number of gRPC messages sent by servers")
)

// Describe describes nothing, as Traffic's.
func (x *Exchanges) Describe(chan<- *prometheus.Desc) {}

// Collect drops what has expired and gives the rest.
func (x *Exchanges) Collect(out chan<- prometheus.Metric) {
	for _, s := range x.copies(time.Now()) {
		s.collect(out)
	}
}

// copies lets requests go on while a scrape writes.
func (x *Exchanges) copies(now time.Time) []exchangeSeries {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expireLocked(now)
	out := make([]exchangeSeries, 0, len(x.series))
	for _, s := range x.series {
		out = append(out, *s)
	}
	return out
}

func (s *exchangeSeries) collect(out chan<- prometheus.Metric) {
	values := s.labels.values()
	count := func(d *prometheus.Desc, n uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), values...)
	}
	observe := func(d *prometheus.Desc, h *histogram) {
		buckets, n := h.cumulated()
		out <- prometheus.MustNewConstHistogram(d, n, h.sum, buckets, values...)
	}
	count(requestsDesc, s.requests)
	observe(durationDesc, &s.milliseconds)
	observe(requestBytesDesc, &s.received)
	observe(responseBytesDesc, &s.sent)
	if s.labels.protocol == "grpc" {
		count(requestMessagesDesc, s.requestMessages)
		count(responseMessagesDesc, s.responseMessages)
	}
}

func (l *exchangeLabels) values() []string {
	grpc := ""
	if l.grpc >= 0 {
		grpc = strconv.Itoa(l.grpc)
	}
	return append(l.endValues(), l.protocol, strconv.Itoa(l.status), grpc, string(l.flag), l.security())
}
