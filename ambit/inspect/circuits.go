package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Waypoint is what is read of a waypoint's /config_dump.
type Waypoint struct {
	Circuits []Circuit `json:"circuits"`
}

// Circuit is the breaker of one endpoint, as one waypoint pod has it.
type Circuit struct {
	Service struct {
		Namespace, Hostname string
	} `json:"service"`
	Port      uint16        `json:"port"`
	Workload  string        `json:"workload"`
	State     string        `json:"state"`
	Percent   int           `json:"percent"`
	Cause     string        `json:"cause"`
	Since     time.Time     `json:"since"`
	Until     time.Time     `json:"until"`
	Ejections int           `json:"ejections"`
	InFlight  int64         `json:"inFlight"`
	Latency   time.Duration `json:"latency"`
}

// ParseWaypoint reads a waypoint's dump.
func ParseWaypoint(b []byte) (*Waypoint, error) {
	w := &Waypoint{}
	if err := json.Unmarshal(b, w); err != nil {
		return nil, fmt.Errorf("reading a waypoint's state dump: %w", err)
	}
	return w, nil
}

// CircuitTable is the breakers that a waypoint pod has; with troubled, only of
// endpoints that were ever ejected.
func CircuitTable(pod string, w *Waypoint, f Filter, troubled bool, now time.Time) Table {
	t := Table{Header: []string{"SERVICE", "PORT", "ENDPOINT", "WAYPOINT", "STATE", "SHARE", "SINCE", "EJECTIONS", "CAUSE"}}
	for _, c := range w.Circuits {
		if !keep(f.Namespace, c.Service.Namespace) || troubled && c.Ejections == 0 {
			continue
		}
		t.Rows = append(t.Rows, []string{
			c.Service.Namespace + "/" + c.Service.Hostname, strconv.Itoa(int(c.Port)), c.Workload, pod,
			c.State, strconv.Itoa(c.Percent) + "%", c.since(now), strconv.Itoa(c.Ejections), c.told(now),
		})
	}
	return t.sorted()
}

func (c *Circuit) since(now time.Time) string {
	if c.Since.IsZero() {
		return ""
	}
	return now.Sub(c.Since).Round(time.Second).String()
}

// told is the cause, with when an open circuit is probed.
func (c *Circuit) told(now time.Time) string {
	if left := c.Until.Sub(now).Round(time.Second); left > 0 {
		return fmt.Sprintf("%s (probed in %s)", c.Cause, left)
	}
	return c.Cause
}
