package suite

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/manifests"
)

// metricsPort is that of node proxies and waypoints.
const metricsPort = 15020

// Counted sums the series of a metric that have all labels, written as k="v",
// over the node proxies.
func (sc *Scene) Counted(ctx context.Context, metric string, labels ...string) (float64, error) {
	return sc.countedBy(ctx, manifests.Namespace, "app=ztunnel", metric, labels...)
}

// countedBy sums over the pods of a namespace that a label selects.
func (sc *Scene) countedBy(ctx context.Context, namespace, by, metric string, labels ...string) (sum float64, err error) {
	pods, err := sc.Reach.RunningPods(ctx, namespace, by, "")
	if err != nil {
		return 0, err
	}
	for _, p := range pods {
		text, err := sc.Reach.Get(ctx, p.Namespace, p.Name, metricsPort, "/metrics")
		if err != nil {
			return 0, fmt.Errorf("asking %s for its metrics: %w", p.Name, err)
		}
		sum += sumSeries(string(text), metric, labels...)
	}
	return sum, nil
}

// sumSeries reads the exposition format of Prometheus.
func sumSeries(text, metric string, labels ...string) (sum float64) {
next:
	for line := range strings.Lines(text) {
		series, ok := strings.CutPrefix(strings.TrimSpace(line), metric+"{")
		if !ok {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(","+series, ","+l) {
				continue next
			}
		}
		if v, err := strconv.ParseFloat(series[strings.LastIndexByte(series, ' ')+1:], 64); err == nil {
			sum += v
		}
	}
	return sum
}
