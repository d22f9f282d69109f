package reach

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Door is a way to one HTTP server, such as the administration of a pod. It may
// be used by many goroutines. One that was made by its URL need not be closed.
type Door struct {
	// Name is whom it leads to, as "namespace/pod".
	Name string
	// URL is where it begins, without a path.
	URL string

	stop func()
	once sync.Once
}

// Close ends the way. It may be called twice.
func (d *Door) Close() {
	d.once.Do(func() {
		if d.stop != nil {
			d.stop()
		}
	})
}

// StatusError is an answer that is none: its status and what the server said.
type StatusError struct {
	Name, Path, Text string
	Status           int
}

// Error implements error.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s to %s", e.Name, e.Status, http.StatusText(e.Status), e.Path)
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// Get fetches a path.
func (d *Door) Get(ctx context.Context, path string) ([]byte, error) {
	return d.do(ctx, http.MethodGet, path, nil)
}

// Post sends a value as JSON and reads the answer's into another.
func (d *Door) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("writing a question to %s: %w", d.Name, err)
	}
	answer, err := d.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return d.read(answer, path, out)
}

// GetJSON fetches a path and reads its JSON.
func (d *Door) GetJSON(ctx context.Context, path string, out any) error {
	answer, err := d.Get(ctx, path)
	if err != nil {
		return err
	}
	return d.read(answer, path, out)
}

func (d *Door) read(answer []byte, path string, out any) error {
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading %s of %s: %w", path, d.Name, err)
	}
	return nil
}

// do makes one request on a connection of its own, which ends with it: what is
// behind a port-forward is no place for idle connections.
func (d *Door) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", d.Name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", d.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{Name: d.Name, Path: path, Status: resp.StatusCode, Text: strings.TrimSpace(string(answer[:min(len(answer), 300)]))}
	}
	return answer, nil
}
