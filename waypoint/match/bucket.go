package match

import "strings"

// bucket is candidates for one place of the index. Of those that match, the
// first wins. A long list is spread by what headers and query parameters must
// be, so that thousands of rules which differ only in a header cost no more
// than a few.
type bucket struct {
	// list is what must be asked one by one, in order.
	list []*candidate
	// headers and query are by name and exact value; nil while the list is short.
	headers, query map[string]map[string]*bucket
}

// spreadFrom is the length from which looking things up pays.
const spreadFrom = 16

// spread takes candidates out of the list, each to the rarest of the values
// that it asks for. Those that ask for none stay.
func (b *bucket) spread() {
	if len(b.list) < spreadFrom {
		return
	}
	rare := map[[3]string]int{}
	for _, c := range b.list {
		for key := range c.exactValues {
			rare[key]++
		}
	}
	all := b.list
	b.list, b.headers, b.query = nil, map[string]map[string]*bucket{}, map[string]map[string]*bucket{}
	for _, c := range all {
		best, found := [3]string{}, false
		for key := range c.exactValues {
			if !found || rare[key] < rare[best] {
				best, found = key, true
			}
		}
		if !found {
			b.list = append(b.list, c)
			continue
		}
		by := b.headers
		if best[0] == inQuery {
			by = b.query
		}
		put(by, best[1], best[2], c)
	}
}

func put(by map[string]map[string]*bucket, name, value string, c *candidate) {
	if by[name] == nil {
		by[name] = map[string]*bucket{}
	}
	if by[name][value] == nil {
		by[name][value] = &bucket{}
	}
	b := by[name][value]
	b.list = append(b.list, c)
}

const (
	inHeader = "header"
	inQuery  = "query"
)

// exactValues gives where, name and value of each exact test.
func (c *candidate) exactValues(yield func([3]string) bool) {
	for _, t := range c.headers {
		if t.re == nil && !yield([3]string{inHeader, t.name, t.value}) {
			return
		}
	}
	for _, t := range c.query {
		if t.re == nil && !yield([3]string{inQuery, t.name, t.value}) {
			return
		}
	}
}

// first is the candidate that wins, nil if none matches.
func (b *bucket) first(q *Request, path string) *candidate {
	if b == nil {
		return nil
	}
	s := search{q: q, path: path}
	s.in(b)
	return s.best
}

// search is looking for the first candidate in several places.
type search struct {
	q    *Request
	path string
	best *candidate
}

// in looks into all lists of a bucket.
func (s *search) in(b *bucket) {
	s.ask(b)
	if len(b.headers) > 0 {
		s.byHeader(b.headers)
	}
	if len(b.query) > 0 {
		s.byQuery(b.query)
	}
}

func (s *search) ask(b *bucket) {
	if b == nil {
		return
	}
	for _, c := range b.list {
		if s.best != nil && c.order > s.best.order {
			return
		}
		if c.matches(s.q, s.path) {
			s.best = c
			return
		}
	}
}

// byHeader goes through the names of the rules or those of the request,
// whichever are fewer.
func (s *search) byHeader(by map[string]map[string]*bucket) {
	if len(by) > len(s.q.Header)+1 {
		s.ask(by["Host"][s.q.Host])
		for name, values := range s.q.Header {
			if len(values) > 0 {
				s.ask(by[name][values[0]])
			}
		}
		return
	}
	for name, buckets := range by {
		if value, ok := s.q.header(name); ok {
			s.ask(buckets[value])
		}
	}
}

// byQuery is the same for query parameters. Of a repeated one only the first
// counts, which the candidate knows.
func (s *search) byQuery(by map[string]map[string]*bucket) {
	if len(by) > strings.Count(s.q.Query, "&")+1 {
		for name, value := range s.q.parameters {
			s.ask(by[name][value])
		}
		return
	}
	for name, buckets := range by {
		if value, ok := s.q.parameter(name); ok {
			s.ask(buckets[value])
		}
	}
}
