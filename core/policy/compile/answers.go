package compile

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/keystile/keystile/core/policy"
)

// answerDoc overrides what a status or a reason answers.
type answerDoc struct {
	Status    int  `yaml:"status"`
	Title     text `yaml:"title"`
	Message   text `yaml:"message"`
	Code      text `yaml:"code"`
	Challenge text `yaml:"challenge"`
	Body      text `yaml:"body"`
	// Required has the message where a certain scope was missing, and
	// RequiredBody the body that it goes into.
	Required     entries[requiredDoc] `yaml:"required"`
	RequiredBody text                 `yaml:"required_body"`
}

type requiredDoc struct {
	Message text `yaml:"message"`
}

// draft is an answer whose words are not yet in its body.
type draft struct {
	policy.Words
	challenge, body string
}

func (c *compiler) answers() error {
	contentType, body := c.doc.ContentType.s, c.doc.Body.s
	if (contentType == "") != (body == "") {
		return c.doc.Name.Errorf("give content_type and body together, or neither for %s", policy.ProblemType)
	}
	if body == "" {
		contentType, body = policy.ProblemType, policy.ProblemBody
	}
	byStatus, byReason, err := c.overrides()
	if err != nil {
		return err
	}
	for i := range c.p.Answers {
		r, own := policy.Reason(i), byReason[policy.Reason(i)]
		a := &c.p.Answers[i]
		a.Status, a.ContentType = 200, contentType
		if r == policy.OK {
			continue
		}
		a.Status = r.DefaultStatus()
		if own.Status != 0 {
			a.Status = own.Status
		}
		d := draft{Words: policy.DefaultWords(r, a.Status), body: body}
		if r != policy.Plaintext { // its 403 is not the one of a key that may not
			d.override(byStatus[a.Status])
		}
		if a.Status == 401 && d.challenge == "" {
			d.challenge = fmt.Sprintf("Bearer realm=%q", c.p.Name)
		}
		d.override(own)
		if d.Title == "" || d.Message == "" {
			return c.doc.Name.Errorf("reason %s answers %d: give that answer a title and a message", r, a.Status)
		}
		a.Challenge, a.Body = d.challenge, d.fill(a.Status)
		for _, e := range own.Required {
			if _, ok := c.instance(e.key.s); !ok {
				return e.key.Errorf("scope %q is not declared under scopes", e.key.s)
			}
			missing := d
			missing.override(answerDoc{Message: e.value.Message, Body: own.RequiredBody})
			a.ByRequired = append(a.ByRequired, policy.RequiredBody{Scope: e.key.s, Body: missing.fill(a.Status)})
		}
	}
	return nil
}

// overrides sorts the document's answers by what they are for.
func (c *compiler) overrides() (byStatus map[int]answerDoc, byReason map[policy.Reason]answerDoc, err error) {
	byStatus, byReason = make(map[int]answerDoc), make(map[policy.Reason]answerDoc)
	for _, e := range c.doc.Answers {
		for key := range strings.FieldsSeq(e.key.s) {
			status, err := strconv.Atoi(key)
			reason, isReason := policy.ParseReason(key)
			switch {
			case err == nil && status >= 400 && status <= 599:
				if e.value.Status != 0 || e.value.Required != nil {
					return nil, nil, e.key.Errorf("answer %d is for a status: another status or required scopes go to a reason", status)
				}
				byStatus[status] = e.value
			case isReason && reason != policy.OK:
				if e.value.Required != nil && reason != policy.Scope {
					return nil, nil, e.key.Errorf("only the answer of reason scope can depend on the required scope")
				}
				byReason[reason] = e.value
			default:
				return nil, nil, e.key.Errorf("answer %q is neither a status nor a reason", key)
			}
		}
	}
	return byStatus, byReason, nil
}

func (d *draft) override(by answerDoc) {
	for _, o := range []struct {
		to   *string
		from text
	}{
		{&d.Title, by.Title},
		{&d.Message, by.Message},
		{&d.Code, by.Code},
		{&d.challenge, by.Challenge},
		{&d.body, by.Body},
	} {
		if o.from.s != "" {
			*o.to = o.from.s
		}
	}
}

// fill puts the words into the body, each as the inside of a JSON string.
func (d draft) fill(status int) string {
	return strings.NewReplacer(
		"${title}", inJSON(d.Title), "${message}", inJSON(d.Message), "${code}", inJSON(d.Code),
		"${status}", strconv.Itoa(status),
	).Replace(d.body)
}

func inJSON(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string always encodes
	quoted := strings.TrimSuffix(b.String(), "\n")
	return quoted[1 : len(quoted)-1]
}
