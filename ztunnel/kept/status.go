package kept

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Status is what an administrator is shown.
type Status struct {
	Dir string `json:"dir,omitempty"`
	// Off is why nothing is kept.
	Off         string     `json:"off,omitempty"`
	State       FileStatus `json:"state"`
	Certificate FileStatus `json:"certificates"`
	// Restored is what this process began with, absent if with nothing.
	Restored *Restored `json:"restored,omitempty"`
}

// FileStatus is one file's.
type FileStatus struct {
	Bytes   int64     `json:"bytes"`
	Written time.Time `json:"written"`
	// Complaint is why it was refused or could not be written.
	Complaint string `json:"complaint,omitempty"`
}

// Status tells how the keeping goes.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Dir: k.config.Dir, State: k.files[stateFile].status(), Certificate: k.files[keysFile].status(), Restored: k.restored}
	if k.off != nil {
		s.Off = k.off.Error()
	}
	return s
}

func (f *file) status() FileStatus {
	return FileStatus{Bytes: f.bytes, Written: f.written, Complaint: f.complaint}
}

var (
	bytesDesc    = prometheus.NewDesc("ambit_kept_bytes", "The size of a file kept for the next start", []string{"file"}, nil)
	writesDesc   = prometheus.NewDesc("ambit_kept_writes_total", "How often a file was written for the next start", []string{"file"}, nil)
	failuresDesc = prometheus.NewDesc("ambit_kept_write_failures_total", "How often a file could not be written for the next start", []string{"file"}, nil)
	refusedDesc  = prometheus.NewDesc("ambit_kept_refused_total", "Files of an earlier process that were torn, changed, too old or of another mesh", []string{"file"}, nil)
)

// Describe makes Keeper a prometheus.Collector.
func (k *Keeper) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(k, out) }

// Collect gives the numbers of each file.
func (k *Keeper) Collect(out chan<- prometheus.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, f := range k.files {
		out <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(f.bytes), name)
		out <- prometheus.MustNewConstMetric(writesDesc, prometheus.CounterValue, float64(f.writes), name)
		out <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(f.failures), name)
		out <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(f.refused), name)
	}
}
